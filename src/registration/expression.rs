//! Texts and lists as CEL writes them (`google/cel-spec doc/langdef.md`, "String and Bytes Values").

use std::fmt::Write as _;

/// A text in single quotes.
pub(super) fn text(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('\'');
    for char in text.chars() {
        match char {
            '\'' | '\\' => {
                quoted.push('\\');
                quoted.push(char);
            }
            char if char.is_control() => {
                // Writing to a String does not fail.
                let _ = write!(quoted, "\\U{:08x}", u32::from(char));
            }
            char => quoted.push(char),
        }
    }
    quoted.push('\'');
    quoted
}

/// A list of texts.
pub(super) fn list<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let texts: Vec<String> = texts.into_iter().map(text).collect();
    format!("[{}]", texts.join(", "))
}

/// The name of a variable for a device. A device's name is a DNS label, so that no two become one.
pub(super) fn variable(start: &str, device: &str) -> String {
    format!("{start}_{}", device.replace('-', "_"))
}

/// A text as RE2 reads it where it stands for itself.
pub(super) fn literal(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_ascii_punctuation() && !matches!(char, '-' | '_' | '/') {
            escaped.push('\\');
        }
        escaped.push(char);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted() {
        assert_eq!(text("a/b"), "'a/b'");
        assert_eq!(text(r"it's a\b"), r"'it\'s a\\b'");
        assert_eq!(text("a\nb"), r"'a\U0000000ab'");
        assert_eq!(list(["a", "b"]), "['a', 'b']");
        assert_eq!(variable("lacks", "vhost-net"), "lacks_vhost_net");
        assert_eq!(literal("a.b-c_d+(e)"), r"a\.b-c_d\+\(e\)");
    }
}
