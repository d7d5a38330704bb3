use super::*;

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

#[track_caller]
fn check(text: &str, expected: &[&str]) -> Vec<FoundPod> {
    let objects = objects(&yaml(text)).unwrap();
    let pods: Vec<FoundPod> = objects.into_iter().flat_map(|object| object.pods).collect();
    let found: Vec<&str> = pods.iter().map(|pod| pod.template.as_str()).collect();
    assert_eq!(found, expected);
    pods
}

const TEMPLATE: &str = "{metadata: {annotations: {a: b}}, spec: {containers: [{name: c}]}}";

#[test]
fn every_built_in_kind_has_its_template() {
    for (kind, pointer) in BUILT_IN.iter().filter(|(kind, _)| *kind != "Pod") {
        let mut text = TEMPLATE.to_owned();
        for field in pointer.rsplit('/').filter(|field| !field.is_empty()) {
            text = format!("{{{field}: {text}}}");
        }
        let object = text.replacen('{', &format!("{{kind: {kind}, metadata: {{name: x}}, "), 1);
        let found = check(&object, &[pointer]);
        assert_eq!(
            found[0].pod["metadata"],
            json!({"annotations": {"a": "b"}, "generateName": "x-"})
        );
        assert_eq!(found[0].pod["kind"], "Pod");
    }
}

#[test]
fn a_pod_is_itself() {
    let text =
        "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: ns}, spec: {containers: [{}]}}";
    let found = check(text, &[""]);
    assert_eq!(found[0].pod, yaml(text));
    assert_eq!(found[0].owner.to_string(), "Pod/p");
    assert_eq!(found[0].owner.namespace.as_deref(), Some("ns"));
}

#[test]
fn custom_kinds_keep_templates_anywhere() {
    check(
        &format!(
            "{{kind: TFJob, spec: {{tfReplicaSpecs: {{PS: {{template: {TEMPLATE}}}, Worker: {{template: {TEMPLATE}}}}}}}}}"
        ),
        &["/spec/tfReplicaSpecs/PS/template", "/spec/tfReplicaSpecs/Worker/template"],
    );
    check(
        &format!(
            "{{kind: RayCluster, spec: {{headGroupSpec: {{template: {TEMPLATE}}}, workerGroupSpecs: [{{template: {TEMPLATE}}}]}}, status: {{template: {TEMPLATE}}}}}"
        ),
        &["/spec/headGroupSpec/template", "/spec/workerGroupSpecs/0/template"],
    );
    check(
        &format!(
            "{{kind: JobSet, spec: {{replicatedJobs: [{{template: {{spec: {{template: {TEMPLATE}}}}}}}]}}}}"
        ),
        &["/spec/replicatedJobs/0/template/spec/template"],
    );
    check("{kind: ConfigMap, data: {a: b}}", &[]);
    check("{kind: CustomResourceDefinition, spec: {x: {spec: {containers: {type: array}}}}}", &[]);
}

#[test]
fn lists_hold_objects() {
    check(
        "{kind: List, items: [{kind: Service}, {kind: Pod, spec: {containers: [{}]}}]}",
        &["/items/1"],
    );
    let found = check(
        "{apiVersion: v1, kind: PodList, items: [{metadata: {name: a}, spec: {containers: [{}]}}]}",
        &["/items/0"],
    );
    assert_eq!(found[0].owner.to_string(), "Pod/a");
}

#[test]
fn argo_makes_a_pod_of_a_container() {
    let found = check(
        "
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: { generateName: build- }
spec:
  serviceAccountName: builder
  podMetadata: { annotations: { a: workflow, b: workflow } }
  volumes: [{ name: shared }]
  templates:
  - name: steps
    steps: []
  - name: build
    metadata: { annotations: { a: template } }
    container: { image: buildah }
    sidecars: [{ name: cache }]
    volumes: [{ name: own }]
  - name: script
    script: { image: python, source: print }
",
        &["/spec/templates/1", "/spec/templates/2"],
    );
    assert_eq!(
        found[0].pod,
        yaml(
            "
apiVersion: v1
kind: Pod
metadata:
  annotations: { a: template, b: workflow, kubectl.kubernetes.io/default-container: main }
  generateName: build-
spec:
  serviceAccountName: builder
  containers: [{ image: buildah, name: main }, { name: cache }]
  volumes: [{ name: own }, { name: shared }]
"
        )
    );
    assert_eq!(found[1].pod["spec"]["containers"], json!([{"image": "python", "name": "main"}]));
}

#[test]
fn a_review_is_taken_as_it_is() {
    let found = check(
        "{kind: AdmissionReview, request: {namespace: ns, object: {kind: Pod, metadata: {name: p}}}}",
        &["/request/object"],
    );
    assert_eq!(found[0].owner.namespace.as_deref(), Some("ns"));
}

#[test]
fn what_is_no_pod_is_said() {
    for (text, expected) in [
        ("a", "is a string, and no Kubernetes object; write apiVersion, kind, metadata and spec"),
        ("[]", "is a list, and no Kubernetes object; write apiVersion, kind, metadata and spec"),
        ("{a: b}", "has no `kind`, so it is no Kubernetes object"),
        ("{kind: Pod}", "is no Pod: `/spec` is missing"),
        ("{kind: Pod, spec: x}", "is no Pod: `/spec` is a string where a mapping belongs"),
        ("{kind: Pod, spec: {}}", "is no Pod: `/spec/containers` is missing"),
        (
            "{kind: Pod, spec: {containers: {}}}",
            "is no Pod: `/spec/containers` is a mapping where a list of containers belongs",
        ),
        (
            "{kind: Pod, spec: {containers: []}}",
            "is no Pod: `/spec/containers` is an empty list where at least one container belongs",
        ),
        (
            "{kind: Pod, spec: {containers: [1]}}",
            "is no Pod: `/spec/containers/0` is a number where a container, a mapping, belongs",
        ),
        ("{kind: Deployment, spec: {}}", "is no Deployment: `/spec/template/spec` is missing"),
    ] {
        assert_eq!(objects(&yaml(text)).unwrap_err().to_string(), expected, "{text}");
    }
}

#[test]
fn an_item_that_cannot_be_read_hides_no_other() {
    let list = yaml(
        "{kind: List, items: [null, {kind: Pod, metadata: {name: p}, spec: {contianers: [{}]}}, {kind: List, items: [{}]}, {kind: Pod, spec: {containers: [{}]}}]}",
    );
    let (found, unread) = readable(&list);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].at.as_str(), "/items/3");
    let sentences: Vec<String> = unread.iter().map(ToString::to_string).collect();
    assert_eq!(
        sentences,
        [
            "holds `items/0`, which is null, and no Kubernetes object; write apiVersion, kind, metadata and spec",
            "holds `items/1` (Pod/p), which is no Pod: `/spec/containers` is missing",
            "holds `items/2/items/0`, which has no `kind`, so it is no Kubernetes object",
        ]
    );
    assert_eq!(*objects(&list).unwrap_err(), unread[0]);
    assert!(!unread[0].is_foreign() && objects(&yaml("{a: b}")).unwrap_err().is_foreign());
}
