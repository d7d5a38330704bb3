//! An API server of tests: objects in memory, with the versions and conflicts that the code rests on.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tower::service_fn;

type Request = axum::http::Request<Body>;
pub(super) type Response = axum::http::Response<Full<Bytes>>;

/// The server; a clone is the same one.
#[derive(Clone, Default)]
pub(super) struct Fake(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// By path.
    objects: BTreeMap<String, Value>,
    version: u64,
    calls: Vec<Call>,
    /// Paths whose applied fields somebody else owns.
    owned: Vec<String>,
    /// Written by somebody else right before our next write of it.
    race: Option<(String, Value)>,
    down: bool,
}

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) body: Value,
}

impl Fake {
    pub(super) fn client(&self) -> Client {
        let fake = self.clone();
        let service = service_fn(move |request: Request| {
            let fake = fake.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
                let call = Call {
                    method: head.method.to_string(),
                    path: head.uri.path().to_owned(),
                    query: head.uri.query().unwrap_or_default().to_owned(),
                    body: serde_json::from_slice(&body).unwrap_or_default(),
                };
                let content = head.headers.get("content-type");
                let applies =
                    content.is_some_and(|content| content == "application/apply-patch+yaml");
                fake.answer(call, applies)
            }
        });
        Client::new(service, "default")
    }

    /// Puts an object there, as somebody else.
    pub(super) fn put(&self, path: &str, object: Value) {
        self.lock().put(path, object);
    }

    /// The object at a path.
    pub(super) fn object(&self, path: &str) -> Value {
        self.lock().objects.get(path).cloned().unwrap_or_default()
    }

    /// Somebody else writes an object right before our next write of it.
    pub(super) fn race(&self, path: &str, object: Value) {
        self.lock().race = Some((path.to_owned(), object));
    }

    /// Whether somebody else owns what is applied to a path.
    pub(super) fn own(&self, path: &str, owned: bool) {
        let mut state = self.lock();
        state.owned.retain(|other| other != path);
        state.owned.extend(owned.then(|| path.to_owned()));
    }

    /// Whether nothing is answered.
    pub(super) fn down(&self, down: bool) {
        self.lock().down = down;
    }

    /// The calls so far of a method, and forgets all.
    pub(super) fn calls(&self, method: &str) -> Vec<Call> {
        let calls = std::mem::take(&mut self.lock().calls);
        calls.into_iter().filter(|call| call.method == method).collect()
    }

    fn answer(&self, call: Call, applies: bool) -> io::Result<Response> {
        let mut state = self.lock();
        state.calls.push(call.clone());
        if state.down {
            return Err(io::Error::from(io::ErrorKind::ConnectionRefused));
        }
        // What is made is posted to the folder that it will be in.
        let raced = |(path, _): &mut (String, Value)| path.starts_with(&call.path);
        if call.method != "GET"
            && let Some((path, object)) = state.race.take_if(raced)
        {
            state.put(&path, object);
        }
        let Call { method, path, body, .. } = call;
        let known = state.objects.get(&path).cloned();
        Ok(match (method.as_str(), known) {
            ("POST", _) => {
                let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap());
                if state.objects.contains_key(&path) {
                    failure(409, "AlreadyExists", "it is there already")
                } else {
                    success(&state.put(&path, body))
                }
            }
            (_, None) => failure(404, "NotFound", "it is not there"),
            ("GET", Some(known)) => success(&known),
            ("PATCH", Some(_)) if applies && state.owned.contains(&path) => {
                failure(409, "Conflict", "Apply failed with 1 conflict:\nconflict with \"argo\"")
            }
            ("PATCH", Some(mut known)) if applies => {
                for applied in body["webhooks"].as_array().unwrap() {
                    let webhooks = known["webhooks"].as_array_mut().unwrap();
                    let named = |webhook: &&mut Value| webhook["name"] == applied["name"];
                    let webhook = webhooks.iter_mut().find(named).unwrap();
                    json_patch::merge(webhook, applied);
                }
                success(&state.put(&path, known))
            }
            (_, Some(known))
                if body["metadata"]["resourceVersion"] != known["metadata"]["resourceVersion"] =>
            {
                failure(409, "Conflict", "the object has been modified")
            }
            ("PUT", Some(_)) => success(&state.put(&path, body)),
            ("PATCH", Some(mut known)) => {
                json_patch::merge(&mut known, &body);
                success(&state.put(&path, known))
            }
            (method, _) => unreachable!("{method} {path}"),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl State {
    fn put(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        object["metadata"]["name"] = json!(path.rsplit('/').next());
        self.objects.insert(path.to_owned(), object.clone());
        object
    }
}

/// The answers of an API server to a watch, in this order; after the last one it is silent.
pub(super) fn watched(answers: Vec<Response>) -> (Client, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let answers = Arc::new(Mutex::new(answers.into_iter()));
    let service = service_fn(move |_: Request| {
        counted.fetch_add(1, Ordering::SeqCst);
        let next = answers.lock().unwrap().next();
        async move {
            match next {
                Some(answer) => Ok::<_, io::Error>(answer),
                None => std::future::pending().await,
            }
        }
    });
    (Client::new(service, "default"), asked)
}

/// An answer to a watch.
pub(super) fn events(events: &[(&str, Value)]) -> Response {
    let lines = events
        .iter()
        .map(|(kind, object)| format!("{}\n", json!({ "type": kind, "object": object })));
    Response::new(Full::from(lines.collect::<String>()))
}

/// An answer as it comes.
pub(super) fn success(object: &Value) -> Response {
    Response::new(Full::from(object.to_string()))
}

/// An answer of an API server that refuses.
pub(super) fn failure(code: u16, reason: &str, message: &str) -> Response {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "code": code, "reason": reason, "message": message,
    });
    let mut response = success(&status);
    *response.status_mut() = axum::http::StatusCode::from_u16(code).unwrap();
    response
}
