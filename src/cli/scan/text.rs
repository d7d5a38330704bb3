//! Text of pods, as it may stand in a terminal or a spreadsheet.

/// The text without what a terminal would obey: control characters, and those that turn the direction of
/// a line or cannot be seen.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|char| if is_unseen(char) { '\u{fffd}' } else { char }).collect()
}

fn is_unseen(char: char) -> bool {
    char.is_control()
        || matches!(char,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
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
        for char in ['\u{1b}', '\n', '\r', '\t', '\u{7f}', '\u{9b}', '\u{202e}', '\u{200b}'] {
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
