//! A file of cases: its shape, and everything that is wrong with one.

use std::collections::{BTreeMap, BTreeSet};

use json_patch::jsonptr::Pointer;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema as schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_saphyr::Spanned;

use crate::decision::finding::Code;
use crate::decision::{KubernetesVersion, Reason, spelling};
use crate::policies::cases::CaseSource;

/// One case: a pod, where it comes from, and what is expected.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Case {
    /// What the case shows, in a few words. No two of a file are the same.
    #[schemars(length(min = 1))]
    pub name: String,
    /// The pod; `apiVersion` and `kind` may be left out. Either this or `review`.
    pub pod: Option<serde_json::Map<String, Value>>,
    /// A file with an `AdmissionReview`, relative to this one. Either this or `pod`.
    pub review: Option<String>,
    /// Where the pod comes from.
    pub namespace: Option<CaseNamespace>,
    /// The service account, if the pod names none.
    pub service_account: Option<String>,
    /// Who creates the pod.
    pub user: Option<String>,
    /// The version of the API server: `"1.29"`. Without it, as the command has it.
    pub kubernetes_version: Option<String>,
    /// What should come out: at least one thing.
    pub expect: Expect,
}

/// A namespace of a case.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CaseNamespace {
    /// Its name. Without it, the pod's own, else `default`.
    pub name: Option<String>,
    /// All of its labels. Without them, the one that opts it in.
    pub labels: Option<BTreeMap<String, String>>,
}

/// What should come out. What is not written is not compared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Expect {
    /// Whether the pod is created.
    pub verdict: Option<Verdict>,
    /// Why, in one word.
    #[serde(default)]
    #[schemars(schema_with = "reasons")]
    pub reason: Option<String>,
    /// All that is granted, in the order of the devices' names; `[]`: nothing.
    pub grants: Option<Vec<ExpectedGrant>>,
    /// The codes of all findings, in any order; `[]`: none.
    pub findings: Option<BTreeSet<Code>>,
    /// Texts that are each part of some warning; `[]`: there is no warning.
    pub warnings: Option<Vec<String>>,
    /// A part of the sentence of a refusal.
    pub message: Option<String>,
    /// Fields of the pod that comes out, each by its JSON Pointer; `null`: the field is absent.
    pub fields: Option<BTreeMap<String, Value>>,
    /// Whether anything of the pod is changed.
    pub patched: Option<bool>,
}

/// What becomes of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Verdict {
    /// It is created.
    Admit,
    /// It is not.
    Refuse,
}

/// One grant. What is not written is not compared.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExpectedGrant {
    /// The device.
    pub device: String,
    /// The mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// How many, for each container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// Who gets it, in the order of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub containers: Option<Vec<String>>,
}

fn reasons(_: &mut SchemaGenerator) -> Schema {
    let words = Reason::ALL.map(Reason::as_str);
    schema!({ "type": ["string", "null"], "enum": words.map(Value::from).into_iter().chain([Value::Null]).collect::<Vec<_>>() })
}

/// The JSON Schema of a case file.
pub fn json_schema() -> Value {
    let mut schema = schemars::schema_for!(Vec<Case>);
    schema.insert("title".to_owned(), "Cases for devgrant policy test".into());
    schema.insert("minItems".to_owned(), 1.into());
    schema.to_value()
}

/// A case, and the line that it begins on.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) line: u64,
    pub(super) case: Case,
}

/// The cases of a file, or everything that is wrong with it, a sentence each.
pub(super) fn parse(source: &CaseSource) -> Result<Vec<Placed>, Vec<String>> {
    let file = &source.file;
    let items = read(&source.text).map_err(|problem| vec![format!("{file}: {problem}")])?;
    let schema = json_schema();
    let mut problems = Vec::new();
    let mut placed: Vec<Placed> = Vec::new();
    let mut lines: BTreeMap<String, u64> = BTreeMap::new();
    for (index, (line, value)) in items.into_iter().enumerate() {
        let name = value.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
        let title = match name {
            Some(name) => format!("case `{}`", spelling::excerpt(name)),
            None => format!("case {}", index + 1),
        };
        let mut tell =
            |problem: String| problems.push(format!("{file}:{line}: {title}: {problem}"));
        if let Some(first) = name.and_then(|name| lines.get(name)) {
            tell(format!("this name is taken by the case on line {first}; tell the two apart"));
        } else if let Some(name) = name {
            lines.insert(name.to_owned(), line);
        }
        let item = schema.get("items").unwrap_or(&Value::Null);
        unknown_fields(&schema, item, &value, "the case", &mut tell);
        match serde_path_to_error::deserialize::<_, Case>(&value) {
            Ok(case) => {
                check(&case, &mut tell);
                placed.push(Placed { line, case });
            }
            Err(error) => {
                let told = error.inner().to_string();
                // Every unknown field is told above, with its nearest spelling.
                if !told.starts_with("unknown field") {
                    tell(mismatch(&error.path().to_string(), &told));
                }
            }
        }
    }
    if problems.is_empty() { Ok(placed) } else { Err(problems) }
}

/// How deep a file of cases may nest, as manifests do.
const DEPTH_LIMIT: usize = 128;
/// The stack for that depth: a level takes some 25 KiB without optimisation.
const STACK: usize = 16 * 1024 * 1024;

/// The items of the list with their lines.
fn read(text: &str) -> Result<Vec<(u64, Value)>, String> {
    let read = || {
        // As manifests are read, which is as kubectl reads them.
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! { max_depth: DEPTH_LIMIT },
            legacy_octal_numbers: true,
            with_snippet: false,
        };
        serde_saphyr::from_str_with_options::<Option<Vec<Spanned<Value>>>>(text, options)
            .map_err(|error| error.without_snippet().to_string())
    };
    let items = std::thread::scope(|scope| {
        let reader = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, read);
        let reader = reader.map_err(|error| error.to_string())?;
        reader.join().map_err(|_| "the YAML parser panicked".to_owned())?
    });
    let items = items.map_err(|problem| format!("this is no list of cases: {problem}"))?;
    let items = items.unwrap_or_default();
    if items.is_empty() {
        return Err("the file holds no case; write one, or remove the file".to_owned());
    }
    Ok(items.into_iter().map(|item| (item.referenced.line(), item.value)).collect())
}

/// Tells every field that the schema does not know, at any depth that has a schema.
fn unknown_fields(
    root: &Value,
    schema: &Value,
    value: &Value,
    name: &str,
    tell: &mut impl FnMut(String),
) {
    let schema = resolve(root, schema);
    match value {
        Value::Object(fields) => {
            let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
                return;
            };
            for (key, value) in fields {
                if let Some(property) = properties.get(key) {
                    unknown_fields(root, property, value, &format!("`{key}`"), tell);
                    continue;
                }
                let key = spelling::excerpt(key);
                let valid = properties.keys().map(String::as_str);
                tell(match spelling::nearest(&key, valid.clone()) {
                    Some(near) => format!("{name} has no field `{key}`; did you mean `{near}`?"),
                    None => {
                        format!("{name} has no field `{key}`; valid: {}", spelling::list(valid))
                    }
                });
            }
        }
        Value::Array(items) => {
            let Some(schema) = schema.get("items") else { return };
            for item in items {
                unknown_fields(root, schema, item, &format!("an item of {name}"), tell);
            }
        }
        _ => {}
    }
}

/// The schema behind a reference, or behind the one that is not `null`.
fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let optional = schema.get("anyOf").and_then(Value::as_array).and_then(|list| list.first());
    let schema = optional.unwrap_or(schema);
    let reference = schema.get("$ref").and_then(Value::as_str);
    let pointer = reference.and_then(|reference| reference.strip_prefix('#'));
    pointer.and_then(|pointer| root.pointer(pointer)).unwrap_or(schema)
}

/// What serde says of a wrong type, with what helps.
fn mismatch(path: &str, told: &str) -> String {
    let place = if path == "." { String::new() } else { format!("`{path}`: ") };
    let is_number = ["integer", "floating point", "boolean"].iter().any(|kind| told.contains(kind));
    let quotes = is_number && told.ends_with("expected a string");
    let help = if quotes { "; put it in quotes" } else { "" };
    format!("{place}{told}{help}")
}

/// What the types cannot say.
fn check(case: &Case, tell: &mut impl FnMut(String)) {
    if case.name.trim().is_empty() {
        tell("the name is empty; say what the case shows".to_owned());
    }
    match (&case.pod, &case.review) {
        (Some(_), Some(_)) => tell("it has both `pod` and `review`; write one".to_owned()),
        (None, None) => tell("it has neither `pod` nor `review`; write one".to_owned()),
        _ => {}
    }
    if let Some(kind) = case.pod.as_ref().and_then(|pod| pod.get("kind"))
        && kind != "Pod"
    {
        tell(format!("`pod` is of kind {kind}; write the pod that it makes"));
    }
    if case.review.is_some() {
        let name = case.namespace.as_ref().and_then(|namespace| namespace.name.as_ref());
        let said = [
            ("namespace.name", name.is_some()),
            ("serviceAccount", case.service_account.is_some()),
            ("user", case.user.is_some()),
        ];
        for (field, _) in said.iter().filter(|(_, said)| *said) {
            tell(format!("`{field}` is in the review already; write it there"));
        }
    }
    if let Some(Err(error)) =
        case.kubernetes_version.as_ref().map(|version| version.parse::<KubernetesVersion>())
    {
        tell(error.to_string());
    }
    check_expect(&case.expect, tell);
}

fn check_expect(expect: &Expect, tell: &mut impl FnMut(String)) {
    let no_fields = expect.fields.as_ref().is_some_and(BTreeMap::is_empty);
    let rest = Expect { fields: expect.fields.clone().filter(|_| !no_fields), ..expect.clone() };
    if rest == Expect::default() {
        tell("`expect` is empty, so nothing is tested; write a `verdict` at least".to_owned());
    }
    let words = Reason::ALL.map(Reason::as_str);
    if let Some(reason) = expect.reason.as_deref().filter(|reason| !words.contains(reason)) {
        let near = spelling::nearest(reason, words);
        let help = near.map_or_else(
            || format!("valid: {}", words.join(", ")),
            |near| format!("did you mean `{near}`?"),
        );
        tell(format!("there is no reason `{}`; {help}", spelling::excerpt(reason)));
    }
    let empty = expect.warnings.iter().flatten().chain(&expect.message).any(String::is_empty);
    if empty {
        tell("an empty text is part of every text; write words of the sentence".to_owned());
    }
    for pointer in expect.fields.iter().flat_map(BTreeMap::keys) {
        if Pointer::parse(pointer).is_err() || pointer.is_empty() {
            tell(format!(
                "`{}` is no JSON Pointer; it begins with `/`, and writes `/` in a name as `~1`",
                spelling::excerpt(pointer)
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let source =
            CaseSource { file: "a.test.yaml".to_owned(), folder: None, text: text.to_owned() };
        parse(&source).map(|_| ()).unwrap_err()
    }

    #[test]
    fn everything_wrong_is_told_at_once_with_its_place() {
        let text = "\
- name: one
  pod: {}
  expect: { verdct: Admit, grants: [{ device: fuse, moed: mount }] }
- nam: two
  review: a.json
  user: jane
  expect: { reason: Grantd }
- name: one
  kubernetesVersion: 1.30
  expect: {}
";
        assert_eq!(
            problems(text),
            [
                "a.test.yaml:1: case `one`: `expect` has no field `verdct`; did you mean `verdict`?",
                "a.test.yaml:1: case `one`: an item of `grants` has no field `moed`; did you mean `mode`?",
                "a.test.yaml:4: case 2: the case has no field `nam`; did you mean `name`?",
                "a.test.yaml:8: case `one`: this name is taken by the case on line 1; tell the two apart",
                "a.test.yaml:8: case `one`: `kubernetesVersion`: invalid type: floating point `1.3`, expected a string; put it in quotes",
            ]
        );
    }

    #[test]
    fn what_types_cannot_say_is_told() {
        for (text, word) in [
            ("{ name: a, expect: { verdict: Admit } }", "neither `pod` nor `review`"),
            (
                "{ name: a, pod: {}, review: b, expect: { verdict: Admit } }",
                "both `pod` and `review`",
            ),
            ("{ name: a, pod: { kind: Job }, expect: { verdict: Admit } }", "of kind \"Job\""),
            (
                "{ name: a, review: b, user: c, expect: { verdict: Admit } }",
                "`user` is in the review",
            ),
            ("{ name: a, pod: {}, expect: {} }", "`expect` is empty"),
            ("{ name: a, pod: {}, expect: { fields: {}, verdict: null } }", "`expect` is empty"),
            ("{ name: a, pod: {} }", "missing field `expect`"),
            ("{ pod: {}, expect: { verdict: Admit } }", "missing field `name`"),
            ("{ name: '', pod: {}, expect: { verdict: Admit } }", "the name is empty"),
            ("{ name: a, pod: {}, expect: { reason: Grantd } }", "did you mean `Granted`?"),
            ("{ name: a, pod: {}, expect: { verdict: Allow } }", "expected `Admit` or `Refuse`"),
            ("{ name: a, pod: {}, expect: { findings: [DG999] } }", "unknown variant `DG999`"),
            ("{ name: a, pod: {}, expect: { message: '' } }", "an empty text"),
            ("{ name: a, pod: {}, expect: { fields: { spec.x: 1 } } }", "is no JSON Pointer"),
            ("{ name: a, pod: {}, kubernetesVersion: '2', expect: { patched: true } }", "1.NN"),
        ] {
            let told = problems(&format!("[{text}]"));
            assert!(told.len() == 1 && told[0].contains(word), "{text}: {told:?}");
        }
    }

    #[test]
    fn what_is_no_list_ends_with_a_sentence() {
        for (text, word) in [
            ("", "holds no case"),
            ("# nothing\n", "holds no case"),
            ("[]", "holds no case"),
            ("name: a\n", "no list of cases"),
            ("- a: [\n", "no list of cases"),
            ("- 3\n", "case 1: invalid type"),
        ] {
            let told = problems(text);
            assert!(told.len() == 1 && told[0].contains(word), "{text}: {told:?}");
        }
        let deep = format!("- {}{}", "[".repeat(50_000), "]".repeat(50_000));
        assert!(problems(&deep)[0].contains("no list of cases"));
    }
}
