//! Everything that installs Devgrant, judged by kubeconform as its users run it: each object by the schema of
//! its kind, closed against fields that the kind does not have. The schemas are those of this API server.
//!
//! Needs the folder that `DEVGRANT_TOOLS` names, as `tests/cluster/tools/build` makes it.

use std::fs;
use std::path::Path;
use std::process::Output;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::control_plane::{ControlPlane, Plane};
use crate::guard::admitted;
use crate::install::{
    CHARTS, KUSTOMIZATIONS, VARIANTS, documents, fine, know_kinds_of_others, printed, rendered,
    tool,
};
use crate::process::soon;
use crate::trial;

/// Where kubeconform looks, under the folder of the schemas; the group of the core is its version.
const LOCATION: &str = "{{.Group}}/{{.ResourceAPIVersion}}/{{.ResourceKind}}.json";
/// Where the schemas of one group and version are in the document that the API server has of it.
const SCHEMAS: &str = "/components/schemas";
/// The kinds of others that we make objects of.
const OF_OTHERS: [&str; 4] = [
    "cert-manager.io/v1/certificate.json",
    "cert-manager.io/v1/issuer.json",
    "monitoring.coreos.com/v1/podmonitor.json",
    "monitoring.coreos.com/v1/prometheusrule.json",
];
/// The least number of objects: a way that makes none is noticed.
const AT_LEAST: usize = 500;

pub(crate) fn trials(plane: &Plane) -> Vec<Trial> {
    vec![trial("schemas::kubeconform_takes_every_object", plane, |plane| {
        kubeconform_takes_every_object(plane);
    })]
}

fn kubeconform_takes_every_object(plane: &ControlPlane) {
    know_kinds_of_others(plane);
    let folder = tempfile::tempdir().unwrap();
    let schemas = folder.path().join("schemas");
    // The API server publishes the schema of a kind some time after it serves the kind.
    soon("the schemas of the kinds of others", || {
        write_schemas(plane, &schemas);
        OF_OTHERS.iter().all(|kind| schemas.join(kind).exists()).then_some(())
    });

    let made = folder.path().join("made");
    fs::create_dir(&made).unwrap();
    let mut objects = 0;
    for (number, (how, text)) in everything(plane).into_iter().enumerate() {
        objects += documents(&text).len();
        // kubeconform names the file of what it refuses, so that its first line is how it was made.
        fs::write(made.join(format!("{number:03}.yaml")), format!("# {how}\n{text}")).unwrap();
    }
    assert!(objects >= AT_LEAST, "{objects} objects, at least {AT_LEAST} were there");
    let said = kubeconform(&schemas, &made);
    let answer = fine_answer(&said);
    let summary = json!({ "valid": objects, "invalid": 0, "errors": 0, "skipped": 0 });
    assert_eq!(answer["summary"], summary);

    it_does_judge(&schemas, folder.path());
}

/// What it says of mistakes, one at a time.
fn it_does_judge(schemas: &Path, folder: &Path) {
    let text = printed(&["--cert-manager", "--monitoring"]);
    for (ours, other, status, words) in [
        (
            "  replicas: 2\n",
            "  replica: 2\n",
            "Invalid",
            "additional properties 'replica' not allowed",
        ),
        ("  replicas: 2\n", "  replicas: two\n", "Invalid", "got string, want integer"),
        ("      maxUnavailable: 0\n", "      maxUnavailable: false\n", "Invalid", "maxUnavailable"),
        ("runAsNonRoot:", "runAsNotRoot:", "Invalid", "'runAsNotRoot' not allowed"),
        (
            "  namespaceSelector:\n",
            "  namespacesSelector:\n",
            "Invalid",
            "'namespacesSelector' not allowed",
        ),
        ("  failurePolicy: Fail\n", "  failurePolicy: Open\n", "Invalid", "value must be one of"),
        (
            "  renewBefore: 720h\n",
            "  renewsBefore: 720h\n",
            "Invalid",
            "'renewsBefore' not allowed",
        ),
        ("  podMetricsEndpoints:\n", "  podMetricEndpoints:\n", "Invalid", "podMetricEndpoints"),
        ("  replicas: 2\n", "  replicas: 2\n  replicas: 2\n", "Error", "already set in map"),
        ("kind: PodDisruptionBudget\n", "kind: PodBudget\n", "Error", "could not find schema"),
    ] {
        assert!(text.contains(ours), "{ours:?} is not in\n{text}");
        let file = folder.join("mistaken.yaml");
        fs::write(&file, text.replacen(ours, other, 1)).unwrap();
        let said = kubeconform(schemas, &file);
        let answer: Value = serde_json::from_slice(&said.stdout).unwrap();
        let refused = answer["resources"].as_array().unwrap();
        let [refused] = &refused[..] else { panic!("{other:?}: {answer:#}") };
        assert!(!said.status.success(), "{other:?}");
        assert_eq!(refused["status"], format!("status{status}"), "{other:?}: {refused:#}");
        let message = refused["msg"].as_str().unwrap();
        assert!(message.contains(words), "{other:?} should say: {words}\nsays: {message}");
    }
}

/// What installs Devgrant, and how it was made.
fn everything(plane: &ControlPlane) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let ours = VARIANTS.iter().chain(CHARTS.iter().map(|(_, flags)| flags));
    let mut flags: Vec<Vec<String>> =
        ours.map(|flags| flags.iter().map(|flag| (*flag).to_owned()).collect()).collect();
    flags.extend(admitted().into_keys());
    flags.sort();
    flags.dedup();
    for flags in flags {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        all.push((format!("devgrant manifests {}", flags.join(" ")), printed(&flags)));
    }
    for (values, _) in CHARTS {
        all.push((format!("helm template {}", values.join(" ")), rendered(values)));
    }
    for (name, _) in KUSTOMIZATIONS {
        let mut kubectl = plane.kubectl();
        let built = kubectl.current_dir(env!("CARGO_MANIFEST_DIR"));
        let built = built.args(["kustomize", &format!("deploy/kustomize/{name}")]).output();
        all.push((format!("kubectl kustomize {name}"), fine(&built.unwrap())));
    }
    for file in ["deploy/devgrant.yaml", "deploy/ca-bundle-alone.yaml", "certs/cert-manager.yaml"] {
        all.push((file.to_owned(), fs::read_to_string(file).unwrap()));
    }
    all
}

/// What kubeconform says of a file or of the files of a folder.
fn kubeconform(schemas: &Path, files: &Path) -> Output {
    let location = format!("{}/{LOCATION}", schemas.display());
    let mut arguments = vec!["-strict", "-summary", "-output=json"];
    arguments.extend(["-schema-location", &location, files.to_str().unwrap()]);
    tool("kubeconform", &arguments)
}

/// Its answer, when it has nothing against what it was given.
#[track_caller]
fn fine_answer(said: &Output) -> Value {
    let answer: Value = serde_json::from_slice(&said.stdout).unwrap();
    let refused: Vec<String> = answer["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|resource| {
            let file = resource["filename"].as_str().unwrap();
            let how = fs::read_to_string(file).unwrap();
            format!("{}: {resource:#}", how.lines().next().unwrap())
        })
        .collect();
    assert_eq!(refused, Vec::<String>::new());
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    answer
}

/// Writes the API server's document of each group and version, closed, and beside it a file a kind that
/// points into it.
fn write_schemas(plane: &ControlPlane, folder: &Path) {
    let get = |path: &str| {
        let answer = plane.call("GET", path, None);
        assert_eq!(answer.status, 200, "{path}: {}", answer.message());
        answer.body
    };
    for path in get("/openapi/v3")["paths"].as_object().unwrap().keys() {
        let (group, version) = match path.split('/').collect::<Vec<_>>()[..] {
            ["api", version] => ("", version),
            ["apis", group, version] => (group, version),
            _ => continue,
        };
        // Without the hash that is named beside it: a document may change in between.
        let mut document = get(&format!("/openapi/v3/{path}"));
        let Some(schemas) = document.pointer_mut(SCHEMAS).and_then(Value::as_object_mut) else {
            continue;
        };
        schemas.values_mut().for_each(close);
        let folder = folder.join(if group.is_empty() { version } else { group }).join(version);
        fs::create_dir_all(&folder).unwrap();
        let own = json!({ "group": group, "version": version });
        for (name, schema) in schemas.iter() {
            // One that is of many kinds is of options or of events, which nobody applies.
            let Some([kind]) = schema[KINDS].as_array().map(Vec::as_slice) else { continue };
            if kind["group"] == own["group"] && kind["version"] == own["version"] {
                let file = format!("{}.json", kind["kind"].as_str().unwrap().to_lowercase());
                let points = json!({ "$ref": format!("document#{SCHEMAS}/{name}") });
                fs::write(folder.join(file), points.to_string()).unwrap();
            }
        }
        fs::write(folder.join("document"), document.to_string()).unwrap();
    }
}

/// Where a schema says which kinds it is of.
const KINDS: &str = "x-kubernetes-group-version-kind";

/// Makes a schema refuse fields that it does not name, all the way down. What is under `allOf`, `anyOf`,
/// `oneOf` and `not` narrows the same object and names part of its fields.
fn close(schema: &mut Value) {
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        return;
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get_mut(key).filter(|inner| inner.is_object()) {
            close(inner);
        }
    }
    let Some(fields) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
    fields.values_mut().for_each(close);
    if schema.get("additionalProperties").is_none() {
        schema["additionalProperties"] = json!(false);
    }
}
