//! The reviews that an API server would send for the pods of manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::bail;
use json_patch::jsonptr::PointerBuf;
use serde_json::{Value, json};

use super::input::{self, Document};
use super::output;
use crate::config::Assumed;
use crate::decision::review::KIND;
use crate::decision::workload::{self, FoundPod, misplaced};
use crate::decision::{Namespace, PolicySet, Request, Review, Settings, unasked};

/// The namespace of an object that names none, as kubectl has it.
pub const FALLBACK_NAMESPACE: &str = "default";
/// The label by which the API server names every namespace (`kubernetes pkg/apis/core/v1/defaults.go`,
/// `SetDefaults_Namespace`).
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Manifests, and a question for each of the pods that they would make.
#[derive(Debug)]
pub struct Manifests {
    /// All documents, in order.
    pub documents: Vec<Document>,
    /// The questions, in the order of the documents.
    pub questions: Vec<Question>,
}

/// The review of one pod.
#[derive(Debug)]
pub struct Question {
    /// The index of the document that the pod is in.
    pub document: usize,
    /// Where the object that makes the pod is inside the document.
    pub object: PointerBuf,
    /// The pod, and where it was found.
    pub pod: FoundPod,
    /// What names the pod in messages: `Deployment/trainer`, and the place of the template where the
    /// object has several.
    pub title: String,
    /// The review, JSON.
    pub review: Vec<u8>,
    /// The namespace of the pod.
    pub namespace: Namespace,
}

impl Manifests {
    /// Reads manifests and asks about every pod in them. Objects without a pod are noted on stderr, and
    /// so are asks that nobody would hear.
    pub fn read(files: &[PathBuf], assumed: &Assumed, settings: &Settings) -> anyhow::Result<Self> {
        let documents = input::documents(files)?;
        let mut questions = Vec::new();
        // `kubectl get pods -o json` where there are none.
        let mut only_empty_lists = !documents.is_empty();
        for (index, document) in documents.iter().enumerate() {
            let objects = match workload::objects(&document.value) {
                Ok(objects) => objects,
                // A folder holds other things too: values of a chart, a kustomization.
                Err(problem) if problem.is_foreign() && !document.named => {
                    output::note(&format!("{} {problem}; passed by", document.place()))?;
                    only_empty_lists = false;
                    continue;
                }
                Err(problem) => bail!("{} {problem}", document.place()),
            };
            only_empty_lists &= objects.is_empty();
            if objects.iter().all(|object| object.pods.is_empty()) {
                let owner = workload::Owner::of(&document.value);
                output::note(&format!("{}: {owner} holds no pod; passed by", document.place()))?;
            }
            let several = objects.iter().map(|object| object.pods.len()).sum::<usize>() > 1;
            for object in objects {
                let owner = workload::Owner::of(&object.value);
                for ask in misplaced::asks(&object, settings) {
                    output::warning(&format!("{owner}: {}", ask.sentence))?;
                }
                for pod in object.pods {
                    let at = object.at.clone();
                    questions.push(Question::new(index, document, at, pod, several, assumed)?);
                }
            }
        }
        if questions.is_empty() && !only_empty_lists {
            let names: Vec<String> = files.iter().map(|file| input::name(file)).collect();
            bail!(
                "nothing in {} holds a pod; name a file with a Pod, a workload, or a custom kind that \
                 holds a pod template",
                names.join(", ")
            );
        }
        Ok(Self { documents, questions })
    }
}

impl Question {
    pub(super) fn new(
        index: usize,
        document: &Document,
        object: PointerBuf,
        pod: FoundPod,
        several: bool,
        assumed: &Assumed,
    ) -> anyhow::Result<Self> {
        let name = assumed.namespace.clone().or_else(|| pod.owner.namespace.clone());
        let name = name.unwrap_or_else(|| FALLBACK_NAMESPACE.to_owned());
        let review = match review_around(&document.value, &pod) {
            Some(review) => review.clone(),
            None => review(&pod.pod, &name, assumed),
        };
        let title = if several {
            format!("{} ({})", pod.owner, pod.template)
        } else {
            pod.owner.to_string()
        };
        Ok(Self {
            document: index,
            object,
            title,
            review: serde_json::to_vec(&review)?,
            namespace: namespace(name, assumed),
            pod,
        })
    }
}

impl Question {
    /// What a pod of the old shape could ask for instead, each as the annotations to add; nothing for one
    /// that has an annotation for the device.
    pub fn asks_that_would_do(&self, policies: &PolicySet) -> Vec<String> {
        let found = || {
            let review = Review::decode(&self.review).ok()?;
            let request = Request::of(&review).ok()?;
            let pod = request.pod().ok()??;
            let findings = unasked::would_go(&request, pod.spec()?, policies, &self.namespace);
            let asks = findings.iter().filter_map(|finding| finding.word("ask"));
            Some(asks.map(str::to_owned).collect::<BTreeSet<_>>())
        };
        found().unwrap_or_default().into_iter().collect()
    }
}

/// Refuses a file that a person wrote without its flag.
pub fn behind_flag(file: &str) -> Result<String, String> {
    Err(format!("a file goes behind the flag: `-f {file}`"))
}

/// A namespace with the labels that are assumed of it, and the one that every namespace has.
pub fn namespace(name: String, assumed: &Assumed) -> Namespace {
    let mut labels = assumed.namespace_labels.clone();
    labels.entry(NAME_LABEL.to_owned()).or_insert_with(|| name.clone());
    Namespace { name, labels }
}

/// The review that the pod was found in, if it was: that is taken as it is.
fn review_around<'a>(document: &'a Value, pod: &FoundPod) -> Option<&'a Value> {
    if pod.owner.kind != KIND {
        return None;
    }
    document.pointer(pod.template.as_str().strip_suffix("/request/object")?)
}

/// The review that the API server would send when the pod is created, with what is assumed about it.
pub(super) fn review(pod: &Value, namespace: &str, assumed: &Assumed) -> Value {
    let mut pod = pod.clone();
    if let (Some(account), Some(spec)) =
        (&assumed.service_account, pod.get_mut("spec").and_then(Value::as_object_mut))
    {
        spec.entry("serviceAccountName").or_insert_with(|| json!(account));
    }
    workload::review(&pod, namespace, assumed.user.as_deref())
}

/// Puts annotations into a pod, and makes the mappings that they stand in; `None` if something else is in
/// the place of one.
pub(super) fn annotate(pod: &mut Value, annotations: &BTreeMap<String, String>) -> Option<()> {
    if annotations.is_empty() {
        return Some(());
    }
    let mut value = pod;
    for key in ["metadata", "annotations"] {
        value = value.as_object_mut()?.entry(key).or_insert(Value::Null);
        if value.is_null() {
            *value = json!({});
        }
    }
    let own = value.as_object_mut()?;
    own.extend(annotations.iter().map(|(key, value)| (key.clone(), json!(value))));
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(text: &str, assumed: &Assumed) -> Vec<Value> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        std::fs::write(&file, text).unwrap();
        let manifests = Manifests::read(&[file], assumed, &Settings::default()).unwrap();
        manifests
            .questions
            .iter()
            .map(|question| serde_json::from_slice(&question.review).unwrap())
            .collect()
    }

    fn assumed() -> Assumed {
        Assumed {
            namespace: None,
            namespace_labels: BTreeMap::new(),
            service_account: Some("builder".to_owned()),
            user: Some("jane".to_owned()),
        }
    }

    #[test]
    fn a_review_reads_as_the_api_servers() {
        use kube::core::DynamicObject;
        use kube::core::admission::{AdmissionRequest, AdmissionReview};
        let reviews = ask(
            "{kind: Pod, apiVersion: v1, metadata: {name: p}, spec: {containers: [{name: c}]}}",
            &assumed(),
        );
        let review: AdmissionReview<DynamicObject> =
            serde_json::from_value(reviews[0].clone()).unwrap();
        let request: AdmissionRequest<DynamicObject> = review.try_into().unwrap();
        assert_eq!(request.namespace.as_deref(), Some("default"));
        assert_eq!(request.user_info.username.as_deref(), Some("jane"));
        assert_eq!(reviews[0]["request"]["object"]["spec"]["serviceAccountName"], "builder");
    }

    #[test]
    fn a_flag_wins_over_the_files_namespace_and_not_over_its_account() {
        let text = "{kind: Pod, metadata: {namespace: file}, spec: {serviceAccountName: own, containers: [{}]}}";
        let review = &ask(text, &assumed())[0];
        assert_eq!(review["request"]["namespace"], "file");
        assert_eq!(review["request"]["object"]["spec"]["serviceAccountName"], "own");
        let flag = Assumed { namespace: Some("flag".to_owned()), ..assumed() };
        assert_eq!(ask(text, &flag)[0]["request"]["namespace"], "flag");
    }

    #[test]
    fn a_review_in_a_file_is_taken_as_it_is() {
        let text = r#"{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u", "namespace": "n", "object": {"kind": "Pod"}}}"#;
        assert_eq!(ask(text, &assumed())[0], serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn every_namespace_has_the_label_of_its_name() {
        assert_eq!(namespace("data".to_owned(), &assumed()).labels[NAME_LABEL], "data");
        let labels = BTreeMap::from([(NAME_LABEL.to_owned(), "given".to_owned())]);
        let given = Assumed { namespace_labels: labels, ..assumed() };
        assert_eq!(namespace("data".to_owned(), &given).labels[NAME_LABEL], "given");
    }
}
