//! Operations on a pod, as operations on the document that the pod was found in.

use anyhow::bail;
use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, PatchOperation, RemoveOperation, ReplaceOperation};
use serde_json::{Value, json};

use crate::decision::workload::Place;

/// What became of the operations on one pod.
#[derive(Debug, Default)]
pub struct Placed {
    /// The operations on the document, each applied.
    pub operations: Vec<PatchOperation>,
    /// Paths in the pod that the document has no place for.
    pub homeless: Vec<PointerBuf>,
}

/// Applies operations on a pod to the document that it was found in.
///
/// A pod as it would be made may have parents that its document does not have: a template may leave out
/// `metadata`, and an Argo pod gets annotations from two places. So parents are added where they are
/// missing, and what is not there is added rather than replaced and needs no removal.
pub fn place(
    document: &mut Value,
    places: &[Place],
    operations: &[PatchOperation],
) -> anyhow::Result<Placed> {
    let mut result = Placed::default();
    for operation in operations {
        let Some(path) = translate(operation.path().as_str(), places) else {
            result.homeless.push(operation.path().to_buf());
            continue;
        };
        let is_there = document.pointer(path.as_str()).is_some();
        let operation = match operation {
            PatchOperation::Replace(ReplaceOperation { value, .. }) if is_there => {
                PatchOperation::Replace(ReplaceOperation { path, value: value.clone() })
            }
            PatchOperation::Add(AddOperation { value, .. })
            | PatchOperation::Replace(ReplaceOperation { value, .. }) => {
                for parent in missing_parents(document, &path) {
                    apply(document, parent, &mut result)?;
                }
                PatchOperation::Add(AddOperation { path, value: value.clone() })
            }
            PatchOperation::Remove(_) if is_there => {
                PatchOperation::Remove(RemoveOperation { path })
            }
            PatchOperation::Remove(_) => continue,
            other => bail!("the decision made an operation that it never makes: {other}"),
        };
        apply(document, operation, &mut result)?;
    }
    Ok(result)
}

fn apply(
    document: &mut Value,
    operation: PatchOperation,
    result: &mut Placed,
) -> anyhow::Result<()> {
    json_patch::patch(document, std::slice::from_ref(&operation))?;
    result.operations.push(operation);
    Ok(())
}

/// The path in the document: through the longest part of the pod that has a place.
pub(super) fn translate(path: &str, places: &[Place]) -> Option<PointerBuf> {
    places
        .iter()
        .filter_map(|place| {
            let rest = path.strip_prefix(place.pod.as_str())?;
            let whole_tokens = rest.is_empty() || rest.starts_with('/');
            whole_tokens.then_some((place, rest))
        })
        .max_by_key(|(place, _)| place.pod.as_str().len())
        .and_then(|(place, rest)| PointerBuf::parse([place.document.as_str(), rest].concat()).ok())
}

fn missing_parents(document: &Value, path: &PointerBuf) -> Vec<PatchOperation> {
    let mut parents = Vec::new();
    let mut child = path.as_ptr();
    while let Some((parent, token)) = child.split_back() {
        // JSON `null` is a missing value to Kubernetes.
        if document.pointer(parent.as_str()).is_some_and(|found| !found.is_null()) {
            break;
        }
        let value = if token.is_next() { json!([]) } else { json!({}) };
        parents.push(PatchOperation::Add(AddOperation { path: parent.to_buf(), value }));
        child = parent;
    }
    parents.reverse();
    parents
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(
        document: &Value,
        places: &[(&str, &str)],
        patch: &Value,
        after: &Value,
        homeless: &[&str],
    ) {
        let places: Vec<Place> = places
            .iter()
            .map(|(pod, document)| Place {
                pod: PointerBuf::parse(*pod).unwrap(),
                document: PointerBuf::parse(*document).unwrap(),
            })
            .collect();
        let patch: json_patch::Patch = serde_json::from_value(patch.clone()).unwrap();
        let mut changed = document.clone();
        let result = place(&mut changed, &places, &patch.0).unwrap();
        assert_eq!(&changed, after);
        assert_eq!(result.homeless, homeless);
        let mut again = document.clone();
        json_patch::patch(&mut again, &result.operations).unwrap();
        assert_eq!(&again, after, "the operations alone do the same");
    }

    #[test]
    fn moves_operations_into_the_template() {
        check(
            &json!({"spec": {"template": {"spec": {"containers": [{"name": "c"}]}}}}),
            &[("", "/spec/template")],
            &json!([
                {"op": "add", "path": "/spec/containers/0/resources", "value": {}},
                {"op": "add", "path": "/metadata/annotations/a~1b", "value": "c"},
            ]),
            &json!({"spec": {"template": {
                "spec": {"containers": [{"name": "c", "resources": {}}]},
                "metadata": {"annotations": {"a/b": "c"}},
            }}}),
            &[],
        );
    }

    #[test]
    fn takes_the_longest_part_and_says_what_has_no_place() {
        check(
            &json!({"t": [{"container": {}, "sidecars": [{"x": 1, "y": 1}]}], "volumes": [1, 2]}),
            &[
                ("/spec/containers/0", "/t/0/container"),
                ("/spec/containers/1", "/t/0/sidecars/0"),
                ("/spec/volumes", "/t/0/volumes"),
                ("/spec/volumes/1", "/volumes/1"),
            ],
            &json!([
                {"op": "replace", "path": "/spec/containers/1/x", "value": 2},
                {"op": "replace", "path": "/spec/containers/0/x", "value": 3},
                {"op": "remove", "path": "/spec/containers/1/y"},
                {"op": "remove", "path": "/spec/containers/1/z"},
                {"op": "remove", "path": "/spec/volumes/1"},
                {"op": "add", "path": "/spec/volumes/-", "value": 4},
                {"op": "add", "path": "/spec/hostUsers", "value": false},
                {"op": "add", "path": "/spec/containers/10", "value": 1},
            ]),
            &json!({"t": [{"container": {"x": 3}, "sidecars": [{"x": 2}], "volumes": [4]}], "volumes": [1]}),
            &["/spec/hostUsers", "/spec/containers/10"],
        );
    }
}
