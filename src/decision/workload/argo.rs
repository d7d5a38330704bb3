//! The pods of Argo Workflows.
//!
//! A template of a Workflow is no pod template: it has one `container` or `script`, and Argo makes the
//! pod around it (`argo-workflows workflow/controller/workflowpod.go`, `createWorkflowPod`). Foretold
//! here is what a decision looks at: the container `main`, which is also the default container, the
//! template's sidecars, init containers and volumes, the metadata of the workflow's `podMetadata` and,
//! over it, of the template, and what the workflow says for all its pods.
//!
//! Not foretold: the containers `wait` and `init` that Argo adds, and their volumes; `podSpecPatch`;
//! `templateDefaults` and the controller's defaults; parameters (`{{inputs.parameters.x}}` stays as it
//! is written); `containerSet`, `resource`, `http` and plugin templates.

use json_patch::jsonptr::{Pointer, PointerBuf};
use serde_json::{Map, Value, json};

use super::{FoundPod, Owner, Place, name_as_controllers_do};

/// The fields that a template and the workflow's spec have in common with a pod's spec; the template
/// wins.
const SHARED_FIELDS: &[&str] = &[
    "affinity",
    "hostAliases",
    "nodeSelector",
    "priorityClassName",
    "schedulerName",
    "securityContext",
    "serviceAccountName",
    "tolerations",
];
/// The fields that only the workflow has.
const WORKFLOW_FIELDS: &[&str] = &["dnsConfig", "dnsPolicy", "hostNetwork", "imagePullSecrets"];
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
const MAIN: &str = "main";

/// Adds the pods of a workflow, or of one of its three kinds of templates, and no more than one above `most`.
pub(super) fn pods(
    object: &Value,
    owner: &Owner,
    at: &Pointer,
    most: usize,
    pods: &mut Vec<FoundPod>,
) {
    let Some((workflow, spec)) = workflow(object, owner) else {
        return;
    };
    let workflow = [at.as_str(), workflow].concat();
    for (index, template) in list(spec, "templates").iter().enumerate() {
        if pods.len() > most {
            return;
        }
        let body = ["container", "script"]
            .into_iter()
            .find(|body| template.get(body).is_some_and(Value::is_object));
        let (Some(body), Ok(template_at)) =
            (body, PointerBuf::parse(format!("{workflow}/templates/{index}")))
        else {
            continue;
        };
        let pod = Assembly { workflow: &workflow, at: template_at.as_str(), places: Vec::new() };
        pods.push(pod.assemble(spec, template, body, owner, template_at.clone()));
    }
}

/// The templates that make a pod which is not foretold, though it has an annotation that is `asking`:
/// where each is inside the object, and what kind of template it is.
pub(super) fn unforetold(
    object: &Value,
    asking: impl Fn(&str) -> bool,
) -> Vec<(String, &'static str)> {
    let owner = Owner::of(object);
    let Some((workflow, spec)) = workflow(object, &owner) else {
        return Vec::new();
    };
    let asks = |metadata: Option<&Value>| {
        let annotations = metadata.and_then(|metadata| metadata.get("annotations"));
        let annotations = annotations.and_then(Value::as_object);
        annotations.is_some_and(|annotations| annotations.keys().any(|key| asking(key)))
    };
    let templates = list(spec, "templates").iter().enumerate();
    let asking = templates
        .filter(|(_, template)| asks(spec.get("podMetadata")) || asks(template.get("metadata")));
    asking
        .filter_map(|(index, template)| {
            let body = NOT_FORETOLD.iter().find(|body| template.get(body).is_some())?;
            Some((format!("{workflow}/templates/{index}"), *body))
        })
        .collect()
}

/// The bodies of templates that make a pod and are not foretold.
const NOT_FORETOLD: &[&str] = &["containerSet", "data", "resource"];

/// The workflow's spec, and where it is.
fn workflow<'a>(object: &'a Value, owner: &Owner) -> Option<(&'static str, &'a Value)> {
    let at = match owner.kind.as_str() {
        _ if !owner.api_version.starts_with("argoproj.io/") => return None,
        "ClusterWorkflowTemplate" | "Workflow" | "WorkflowTemplate" => "/spec",
        "CronWorkflow" => "/spec/workflowSpec",
        _ => return None,
    };
    Some((at, object.pointer(at)?))
}

struct Assembly<'a> {
    workflow: &'a str,
    at: &'a str,
    places: Vec<Place>,
}

impl Assembly<'_> {
    fn assemble(
        mut self,
        workflow: &Value,
        template: &Value,
        body: &str,
        owner: &Owner,
        template_at: PointerBuf,
    ) -> FoundPod {
        let mut main = template.get(body).and_then(Value::as_object).cloned().unwrap_or_default();
        // The text of a script becomes a file.
        main.shift_remove("source");
        main.insert("name".to_owned(), json!(MAIN));
        let mut containers = vec![Value::Object(main)];
        self.place("/spec/containers/0", format!("{}/{body}", self.at));
        for (index, sidecar) in list(template, "sidecars").iter().enumerate() {
            let place = format!("{}/sidecars/{index}", self.at);
            self.place(&format!("/spec/containers/{}", containers.len()), place);
            containers.push(sidecar.clone());
        }
        let mut spec = Map::new();
        for field in WORKFLOW_FIELDS {
            if let Some(value) = workflow.get(field) {
                spec.insert((*field).to_owned(), value.clone());
                self.place(&format!("/spec/{field}"), format!("{}/{field}", self.workflow));
            }
        }
        for field in SHARED_FIELDS {
            let (own, shared) = (template.get(field), workflow.get(field));
            if let Some(value) = own.or(shared) {
                spec.insert((*field).to_owned(), value.clone());
            }
            let home = if own.is_none() && shared.is_some() { self.workflow } else { self.at };
            let place = format!("{home}/{field}");
            self.place(&format!("/spec/{field}"), place);
        }
        spec.insert("containers".to_owned(), Value::Array(containers));
        let init = list(template, "initContainers");
        if !init.is_empty() {
            spec.insert("initContainers".to_owned(), json!(init));
        }
        self.place("/spec/initContainers", format!("{}/initContainers", self.at));
        self.volumes(workflow, template, &mut spec);
        self.place("/metadata", format!("{}/metadata", self.at));
        FoundPod {
            owner: owner.clone(),
            template: template_at,
            pod: json!({
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": metadata(workflow, template, owner),
                "spec": spec,
            }),
            places: self.places,
        }
    }

    /// The template's volumes come first here, so that one that is added lands in the template.
    fn volumes(&mut self, workflow: &Value, template: &Value, spec: &mut Map<String, Value>) {
        let own = list(template, "volumes");
        let shared = list(workflow, "volumes");
        for index in 0..shared.len() {
            let place = format!("{}/volumes/{index}", self.workflow);
            self.place(&format!("/spec/volumes/{}", own.len() + index), place);
        }
        self.place("/spec/volumes", format!("{}/volumes", self.at));
        let volumes: Vec<&Value> = own.iter().chain(shared).collect();
        if !volumes.is_empty() {
            spec.insert("volumes".to_owned(), json!(volumes));
        }
    }

    fn place(&mut self, pod: &str, document: String) {
        if let (Ok(pod), Ok(document)) = (PointerBuf::parse(pod), PointerBuf::parse(document)) {
            self.places.push(Place { pod, document });
        }
    }
}

fn metadata(workflow: &Value, template: &Value, owner: &Owner) -> Map<String, Value> {
    let mut metadata = Map::new();
    for field in ["labels", "annotations"] {
        let mut entries = Map::new();
        for source in [workflow.get("podMetadata"), template.get("metadata")] {
            let found = source.and_then(|source| source.get(field)).and_then(Value::as_object);
            entries.extend(found.cloned().unwrap_or_default());
        }
        if field == "annotations" {
            entries.entry(DEFAULT_CONTAINER).or_insert_with(|| json!(MAIN));
        }
        if !entries.is_empty() {
            metadata.insert(field.to_owned(), Value::Object(entries));
        }
    }
    name_as_controllers_do(&mut metadata, owner);
    metadata
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
