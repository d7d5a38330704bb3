//! Whether a file has the shape of the schema: every unknown field, wrong type and missing field at
//! once.
//!
//! The walk is driven by the same JSON Schema that is published, so that what an editor accepts and
//! what the loader accepts cannot drift apart. Parts that do not fit are told and left out, and the
//! rest goes on to the checks of [`super::compile`].

use serde_json::{Map, Value};

use super::problem::Problem;
use super::tree::{Key, Node, Yaml};
use crate::decision::spelling;

/// Walks one document; returns what of it fits.
pub(super) fn fit(
    schema: &Value,
    document: &Node,
    report: &mut dyn FnMut(Finding),
) -> Option<Value> {
    Walk { root: schema, report }.value(schema, document, "the file")
}

/// What is wrong at one place.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) span: std::ops::Range<usize>,
    pub(super) message: String,
    pub(super) label: String,
    pub(super) help: Option<String>,
}

impl Finding {
    /// The finding as a problem of a file.
    pub(super) fn in_file(self, file: &str) -> Problem {
        Problem {
            severity: super::problem::Severity::Error,
            file: file.to_owned(),
            span: self.span,
            message: self.message,
            label: self.label,
            help: self.help,
        }
    }
}

struct Walk<'a> {
    root: &'a Value,
    report: &'a mut dyn FnMut(Finding),
}

impl<'a> Walk<'a> {
    /// The value as JSON, if it fits; `name` is what a person calls it.
    fn value(&mut self, schema: &'a Value, node: &Node, name: &str) -> Option<Value> {
        let schema = self.resolve(schema);
        let words = words(schema);
        if !words.is_empty() {
            return self.word(&words, node, name);
        }
        if let Some(alternatives) = alternatives(schema) {
            return self.alternative(alternatives, node, name);
        }
        match (&node.value, kind(schema)) {
            (Yaml::Null, _) if accepts_null(schema) => Some(Value::Null),
            (Yaml::Map(entries), "object") => self.map(schema, entries, node, name),
            (Yaml::List(items), "array") => self.list(schema, items, name),
            (Yaml::Text(text), "string") => self.text(schema, text, node, name),
            (Yaml::Bool(value), "boolean") => Some(Value::Bool(*value)),
            (Yaml::Integer(number), "integer") => self.integer(schema, *number, node, name),
            (_, expected) => {
                let help = match (&node.value, expected) {
                    (Yaml::Bool(_) | Yaml::Integer(_) | Yaml::Float(_), "string") => {
                        Some("put it in quotes".to_owned())
                    }
                    (Yaml::Null, _) => Some("write a value, or leave the field out".to_owned()),
                    _ => described(schema),
                };
                self.tell(
                    node,
                    format!(
                        "{name} is {}, and must be {}",
                        found(&node.value),
                        expectation(expected)
                    ),
                    format!("expected {}", expectation(expected)),
                    help,
                )
            }
        }
    }

    fn map(
        &mut self,
        schema: &'a Value,
        entries: &[(Key, Node)],
        node: &Node,
        name: &str,
    ) -> Option<Value> {
        let empty = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
        let mut fitting = Map::new();
        for (key, value) in entries {
            let field = format!("`{}`", key.text);
            if let Some(property) = property_of(schema, &key.text) {
                if let Some(value) = self.value(property, value, &field) {
                    fitting.insert(key.text.clone(), value);
                }
            } else if let Some(any) =
                schema.get("additionalProperties").filter(|any| any.is_object())
            {
                if let Some(value) = self.value(any, value, &field) {
                    fitting.insert(key.text.clone(), value);
                }
            } else {
                let valid = properties.keys().map(String::as_str);
                let label = match spelling::nearest(&key.text, valid.clone()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "unknown field".to_owned(),
                };
                (self.report)(Finding {
                    span: key.span.clone(),
                    message: format!("{name} has no field `{}`", key.text),
                    label,
                    help: Some(format!("valid fields: {}", spelling::list(valid))),
                });
            }
        }
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
        let mut complete = true;
        for field in required.filter_map(Value::as_str) {
            if !entries.iter().any(|(key, _)| key.text == field) {
                let about = property_of(schema, field).and_then(|property| {
                    described(self.resolve(property)).or_else(|| described(property))
                });
                let span =
                    entries.first().map_or_else(|| node.span.clone(), |(key, _)| key.span.clone());
                (self.report)(Finding {
                    span,
                    message: format!("{name} lacks the field `{field}`"),
                    label: format!("`{field}` is required beside this"),
                    help: about.map(|about| format!("`{field}`: {about}")),
                });
                complete = false;
            } else if !fitting.contains_key(field) {
                complete = false;
            }
        }
        complete.then_some(Value::Object(fitting))
    }

    fn list(&mut self, schema: &'a Value, items: &[Node], name: &str) -> Option<Value> {
        let item_schema = schema.get("items")?;
        let fitting: Vec<Option<Value>> = items
            .iter()
            .map(|item| self.value(item_schema, item, &format!("an item of {name}")))
            .collect();
        // All or nothing, so that the items that do fit keep their places for later messages.
        fitting.into_iter().collect::<Option<Vec<_>>>().map(Value::Array)
    }

    fn text(&mut self, schema: &Value, text: &str, node: &Node, name: &str) -> Option<Value> {
        if schema.get("format").and_then(Value::as_str) == Some("profile")
            && crate::decision::policy::schema::Profile::try_from(text.to_owned()).is_err()
        {
            return self.tell(
                node,
                format!("{name} has no value `{text}`"),
                "unknown profile".to_owned(),
                Some(
                    "valid: `Keep`, `RuntimeDefault`, `Unconfined` or `Localhost/<profile>`"
                        .to_owned(),
                ),
            );
        }
        Some(Value::String(text.to_owned()))
    }

    fn integer(&mut self, schema: &Value, number: i64, node: &Node, name: &str) -> Option<Value> {
        let bound = |key| schema.get(key).and_then(Value::as_i64);
        let (least, most) =
            (bound("minimum").unwrap_or(i64::MIN), bound("maximum").unwrap_or(i64::MAX));
        if (least..=most).contains(&number) {
            return Some(Value::from(number));
        }
        self.tell(
            node,
            format!("{name} is {number}, and must be from {least} to {most}"),
            "out of range".to_owned(),
            described(schema),
        )
    }

    /// A value that is one of some words.
    fn word(&mut self, words: &[&str], node: &Node, name: &str) -> Option<Value> {
        let Yaml::Text(text) = &node.value else {
            let expected = format!("expected {}", spelling::list(words.iter().copied()));
            return self.tell(node, format!("{name} is {}", found(&node.value)), expected, None);
        };
        if words.contains(&text.as_str()) {
            return Some(Value::String(text.clone()));
        }
        let label = match spelling::nearest(text, words.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "unknown value".to_owned(),
        };
        let help = format!("valid: {}", spelling::list(words.iter().copied()));
        self.tell(node, format!("{name} has no value `{text}`"), label, Some(help))
    }

    /// A value that is of one of several schemas, `null` among them for an optional one.
    fn alternative(&mut self, alternatives: &'a [Value], node: &Node, name: &str) -> Option<Value> {
        let resolved: Vec<&Value> =
            alternatives.iter().map(|schema| self.resolve(schema)).collect();
        let null = resolved.iter().any(|schema| kind(schema) == "null");
        if null && matches!(node.value, Yaml::Null) {
            return Some(Value::Null);
        }
        let others: Vec<&'a Value> =
            alternatives.iter().filter(|schema| kind(self.resolve(schema)) != "null").collect();
        if let [only] = others.as_slice() {
            return self.value(only, node, name);
        }
        let of_its_kind = others.iter().find(|schema| {
            let schema = self.resolve(schema);
            match &node.value {
                Yaml::Integer(_) => kind(schema) == "integer",
                Yaml::Text(_) => kind(schema) == "string" || !words(schema).is_empty(),
                _ => false,
            }
        });
        if let Some(schema) = of_its_kind {
            return self.value(schema, node, name);
        }
        let expected: Vec<String> = others
            .iter()
            .map(|schema| self.resolve(schema))
            .map(|schema| match words(schema).as_slice() {
                [] => expectation(kind(schema)).to_owned(),
                words => spelling::list(words.iter().copied()),
            })
            .collect();
        let expected = expected.join(" or ");
        self.tell(
            node,
            format!("{name} is {}, and must be {expected}", found(&node.value)),
            format!("expected {expected}"),
            None,
        )
    }

    fn resolve(&self, schema: &'a Value) -> &'a Value {
        let reference = schema.get("$ref").and_then(Value::as_str);
        let target = reference
            .and_then(|reference| reference.strip_prefix('#'))
            .and_then(|pointer| self.root.pointer(pointer));
        target.unwrap_or(schema)
    }

    fn tell(
        &mut self,
        node: &Node,
        message: String,
        label: String,
        help: Option<String>,
    ) -> Option<Value> {
        (self.report)(Finding { span: node.span.clone(), message, label, help });
        None
    }
}

fn property_of<'a>(schema: &'a Value, field: &str) -> Option<&'a Value> {
    schema.get("properties")?.get(field)
}

/// The words of an enumeration, as `schemars` writes one with or without documentation.
fn words(schema: &Value) -> Vec<&str> {
    let constant = |schema: &'_ Value| schema.get("const").is_some();
    if let Some(word) = schema.get("const").and_then(Value::as_str) {
        return vec![word];
    }
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        return words.iter().filter_map(Value::as_str).collect();
    }
    match schema.get("oneOf").and_then(Value::as_array) {
        Some(variants) if variants.iter().all(constant) => {
            variants.iter().filter_map(|variant| variant.get("const")?.as_str()).collect()
        }
        _ => Vec::new(),
    }
}

fn alternatives(schema: &Value) -> Option<&[Value]> {
    let list = schema.get("anyOf").or_else(|| schema.get("oneOf"))?;
    list.as_array().map(Vec::as_slice)
}

/// The type of a schema; of an optional one, the type that is not `null`.
fn kind(schema: &Value) -> &str {
    match schema.get("type") {
        Some(Value::String(kind)) => kind,
        Some(Value::Array(kinds)) => {
            let mut kinds = kinds.iter().filter_map(Value::as_str);
            kinds.find(|kind| *kind != "null").unwrap_or("null")
        }
        _ => "",
    }
}

fn accepts_null(schema: &Value) -> bool {
    match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "null"),
        Some(Value::String(kind)) => kind == "null",
        _ => false,
    }
}

fn described(schema: &Value) -> Option<String> {
    let text = schema.get("description")?.as_str()?;
    Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn expectation(kind: &str) -> &'static str {
    match kind {
        "array" => "a list",
        "boolean" => "true or false",
        "integer" => "a whole number",
        "object" => "a mapping",
        "string" => "text",
        _ => "another value",
    }
}

fn found(value: &Yaml) -> String {
    match value {
        Yaml::Null => "empty".to_owned(),
        Yaml::Bool(value) => value.to_string(),
        Yaml::Integer(number) => number.to_string(),
        Yaml::Float(number) => number.to_string(),
        Yaml::Text(text) => format!("the text `{text}`"),
        Yaml::List(_) => "a list".to_owned(),
        Yaml::Map(_) => "a mapping".to_owned(),
    }
}
