//! However the text of a review is written, it says the same.

use std::fmt::Write as _;

use devgrant::decision::{Review, admit};
use proptest::prelude::*;
use serde_json::Value;

use super::make::case;
use super::{config, namespace};

proptest! {
    #![proptest_config(config(100))]

    /// With an escape for each letter, and spaces wherever there may be some, a pod gets what it would have
    /// got, and is told the same.
    #[test]
    fn escapes_and_spaces_change_nothing(case in case()) {
        let set = case.set();
        let Ok(plain) = case.admit(&set) else { return Ok(()) };
        let text = spelled(&case.review);
        let review = Review::decode(text.as_bytes()).unwrap();
        let other = admit(&review, &set, Some(&namespace(&case.namespace))).unwrap();
        prop_assert_eq!(case.after(&plain)?, case.after(&other)?);
        prop_assert_eq!(plain.to_bytes(), other.to_bytes());
    }
}

fn spelled(value: &Value) -> String {
    match value {
        Value::String(text) => escaped(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(spelled).collect();
            format!("[ {} ]", items.join(" ,\n"))
        }
        Value::Object(entries) => {
            let entry =
                |(key, value): (&String, &Value)| format!("{} : {}", escaped(key), spelled(value));
            let entries: Vec<String> = entries.iter().map(entry).collect();
            format!("{{ {} }}", entries.join(" ,\n"))
        }
        plain => plain.to_string(),
    }
}

fn escaped(text: &str) -> String {
    let mut spelled = String::from("\"");
    for unit in text.encode_utf16() {
        let _ = write!(spelled, "\\u{unit:04x}");
    }
    spelled.push('"');
    spelled
}
