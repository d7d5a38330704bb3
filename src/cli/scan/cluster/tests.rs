use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::{Request as HttpRequest, Response};
use serde_json::json;

use super::*;

/// A cluster that answers with these, one after the other, and the requests that it saw.
fn cluster(answers: Vec<(u16, Value)>) -> (Cluster, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let answers = Arc::new(Mutex::new(answers.into_iter()));
    let seen = Arc::clone(&asked);
    let service = tower::service_fn(move |request: HttpRequest<kube::client::Body>| {
        seen.lock().unwrap().push(request.uri().to_string());
        let (status, body) = answers.lock().unwrap().next().expect("no more was to be asked");
        let response = Response::builder().status(status).body(Body::from(body.to_string()));
        async move { response }
    });
    let client = Client::new(service, "default");
    (Cluster { client, server: "https://cluster.example".to_owned() }, asked)
}

fn page(names: &[&str], token: &str) -> (u16, Value) {
    let items: Vec<Value> =
        names.iter().map(|name| json!({ "metadata": { "name": name } })).collect();
    (200, json!({ "kind": "PodList", "metadata": { "continue": token }, "items": items }))
}

fn expired(token: Option<&str>) -> (u16, Value) {
    let metadata = token.map_or(json!({}), |token| json!({ "continue": token }));
    failure(410, "The provided continue parameter is too old", &metadata)
}

fn failure(code: u16, message: &str, metadata: &Value) -> (u16, Value) {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": metadata, "status": "Failure",
        "message": message, "reason": "Expired", "code": code,
    });
    (code, body)
}

/// What a list gives: the names, and `again` where it began again.
async fn listed(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let mut listed = Vec::new();
    let mut take = |event: Event<'_>| {
        listed.push(match event {
            Event::Again => "again".to_owned(),
            Event::Object(_, raw) => {
                let value: Value = serde_json::from_str(raw.get()).unwrap();
                value["metadata"]["name"].as_str().unwrap().to_owned()
            }
        });
        Ok(())
    };
    let params = ListParams { limit: Some(2), ..ListParams::default() };
    cluster.list("/api/v1/pods", "pods", params, &mut take).await?;
    Ok(listed)
}

#[tokio::test]
async fn a_list_is_read_page_by_page() {
    let (cluster, asked) =
        cluster(vec![page(&["a", "b"], "t1"), page(&[], "t2"), page(&["c"], "")]);
    assert_eq!(listed(&cluster).await.unwrap(), ["a", "b", "c"]);
    let tokens: Vec<bool> =
        asked.lock().unwrap().iter().map(|uri| uri.contains("limit=2")).collect();
    assert_eq!(tokens, [true, true, true]);
    let asked = asked.lock().unwrap();
    assert!(!asked[0].contains("continue="), "{asked:?}");
    assert!(asked[1].contains("continue=t1") && asked[2].contains("continue=t2"), "{asked:?}");
}

#[tokio::test]
async fn a_list_that_expired_goes_on_with_the_token_of_the_answer() {
    let (cluster, asked) =
        cluster(vec![page(&["a"], "old"), expired(Some("new")), page(&["b"], "")]);
    assert_eq!(listed(&cluster).await.unwrap(), ["a", "b"]);
    assert!(asked.lock().unwrap()[2].contains("continue=new"));
}

#[tokio::test]
async fn a_list_that_expired_without_a_token_begins_again() {
    let (cluster, asked) = cluster(vec![page(&["a"], "old"), expired(None), page(&["a"], "")]);
    assert_eq!(listed(&cluster).await.unwrap(), ["a", "again", "a"]);
    assert!(!asked.lock().unwrap()[2].contains("continue="));
}

#[tokio::test]
async fn a_list_that_always_expires_ends_with_a_sentence() {
    let mut with_tokens = vec![page(&["a"], "old")];
    with_tokens.extend((0..=MOST_EXPIRIES).map(|_| expired(Some("new"))));
    let without: Vec<_> =
        (0..=MOST_EXPIRIES).flat_map(|_| [page(&["a"], "old"), expired(None)]).collect();
    for answers in [with_tokens, without] {
        let (cluster, _) = cluster(answers);
        let error = listed(&cluster).await.unwrap_err().to_string();
        assert!(error.contains("raise --page-size"), "{error}");
    }
}

#[tokio::test]
async fn a_first_page_that_is_gone_is_an_error() {
    let (cluster, _) = cluster(vec![expired(Some("new"))]);
    let error = listed(&cluster).await.unwrap_err().to_string();
    assert!(error.contains("cannot list pods: 410"), "{error}");
}

#[tokio::test]
async fn lists_of_nothing_are_lists() {
    for items in [json!(null), json!([])] {
        let (cluster, _) = cluster(vec![(200, json!({ "metadata": {}, "items": items }))]);
        assert!(listed(&cluster).await.unwrap().is_empty());
    }
}
