//! The results as JUnit XML, which CI systems show beside the tests of programs.

use std::fmt::Write as _;

use super::Tested;

/// The report: a suite for each file. No times: the same policies give the same bytes.
pub(super) fn report(tested: &[Tested]) -> String {
    let failed = |tested: &[Tested]| tested.iter().filter(|tested| !tested.passed).count();
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    // Writing to a String does not fail.
    let _ = writeln!(
        xml,
        "<testsuites name=\"devgrant policy test\" tests=\"{}\" failures=\"{}\" errors=\"0\">",
        tested.len(),
        failed(tested)
    );
    for suite in tested.chunk_by(|one, other| one.file == other.file) {
        let file = suite.first().map(|tested| escape(&tested.file)).unwrap_or_default();
        let _ = writeln!(
            xml,
            "  <testsuite name=\"{file}\" tests=\"{}\" failures=\"{}\" errors=\"0\" skipped=\"0\">",
            suite.len(),
            failed(suite)
        );
        for tested in suite {
            let _ = write!(
                xml,
                "    <testcase name=\"{}\" classname=\"{file}\" file=\"{file}\" line=\"{}\"",
                escape(&tested.name),
                tested.line
            );
            xml.push_str(&failure(tested).unwrap_or_else(|| "/>\n".to_owned()));
        }
        xml.push_str("  </testsuite>\n");
    }
    xml.push_str("</testsuites>\n");
    xml
}

/// The rest of a case that failed.
fn failure(tested: &Tested) -> Option<String> {
    let unmet = &tested.outcome.unmet;
    let titles: Vec<String> = unmet.iter().map(super::Unmet::title).collect();
    let lines: Vec<String> = unmet
        .iter()
        .map(|unmet| {
            let (expected, actual) = (unmet.expected(), unmet.actual());
            format!("{}\n  expected {expected}\n  actual   {actual}\n", unmet.title())
        })
        .collect();
    (!unmet.is_empty()).then(|| {
        format!(
            ">\n      <failure message=\"otherwise than expected: {}\" type=\"expectation\">{}</failure>\n    </testcase>\n",
            escape(&titles.join(", ")),
            escape(&lines.concat())
        )
    })
}

/// Text for an attribute or an element. What XML 1.0 has no way to write is replaced.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            // In an attribute these would be read as spaces.
            '\n' => escaped.push_str("&#10;"),
            '\t' => escaped.push_str("&#9;"),
            '\r' => escaped.push_str("&#13;"),
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            char => escaped.push(char),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_reads_back() {
        for (text, back) in [
            ("a & b < c > \"d\" 'e' ]]>", "a & b < c > \"d\" 'e' ]]>"),
            ("a\n\tb\r\n", "a\n\tb\r\n"),
            ("\0\u{1b}[31m\u{fffe}", "\u{fffd}\u{fffd}[31m\u{fffd}"),
            ("ä☃\u{10ffff}", "ä☃\u{10ffff}"),
        ] {
            let xml = format!("<a b=\"{0}\">{0}</a>", escape(text));
            let document = roxmltree::Document::parse(&xml).unwrap();
            let element = document.root_element();
            assert_eq!((element.attribute("b"), element.text()), (Some(back), Some(back)));
        }
    }
}
