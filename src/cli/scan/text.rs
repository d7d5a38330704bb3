//! Text of pods, as it may stand in a terminal or a spreadsheet.

use crate::telemetry::is_visible;

/// The text without what a terminal would obey: control characters, and those that turn the direction of
/// a line or cannot be seen.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|char| if is_visible(char) { char } else { '\u{fffd}' }).collect()
}

/// A cell of RFC 4180. A spreadsheet takes one that begins like a formula for one: an apostrophe in
/// front makes it text (OWASP, "CSV Injection").
pub(super) fn cell(text: &str) -> String {
    let formula = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];
    let mark = if text.starts_with(formula) { "'" } else { "" };
    let text = format!("{mark}{text}");
    if text.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_obeys_nothing() {
        for char in
            ['\u{1b}', '\n', '\r', '\t', '\u{7f}', '\u{9b}', '\u{202e}', '\u{200b}', '\u{3164}']
        {
            assert_eq!(plain(&format!("a{char}b")), "a\u{fffd}b", "{char:?}");
        }
        assert_eq!(plain("müller-☃"), "müller-☃");
    }

    #[test]
    fn cells_are_text_to_a_spreadsheet() {
        for (text, expected) in [
            ("", ""),
            ("a b", "a b"),
            ("a,b", "\"a,b\""),
            ("say \"a\"", "\"say \"\"a\"\"\""),
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("＝1+1", "'＝1+1"),
            ("=HYPERLINK(\"x\",\"y\")", "\"'=HYPERLINK(\"\"x\"\",\"\"y\"\")\""),
            ("a=1", "a=1"),
        ] {
            assert_eq!(cell(text), expected);
        }
    }
}
