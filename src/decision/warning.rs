//! A warning as the API server passes it on to the person at `kubectl`.

use std::fmt;

/// One line of at most [`Warning::MAX_CHARS`] characters, with no control character in it.
///
/// The API server drops a warning with a control character in silence, and asks for at most 120
/// characters (`kubernetes/apiserver pkg/endpoints/filters/warning.go`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning(String);

impl Warning {
    /// The longest warning, in characters.
    pub const MAX_CHARS: usize = 120;
    /// The most characters of all warnings together, less what the last line takes.
    const MAX_TOTAL: usize = 4096 - Self::MAX_CHARS;

    /// A warning of this text: control characters become spaces, and what is too long is cut.
    pub fn new(text: impl AsRef<str>) -> Self {
        let line = text.as_ref().chars().map(|char| if char.is_control() { ' ' } else { char });
        let mut line: Vec<char> = line.take(Self::MAX_CHARS + 1).collect();
        if line.len() > Self::MAX_CHARS {
            line.truncate(Self::MAX_CHARS - 1);
            line.push('…');
        }
        Self(line.into_iter().collect())
    }

    /// As many warnings as a text needs, cut between words: nothing of a remedy is lost.
    pub fn lines(text: impl AsRef<str>) -> Vec<Self> {
        let mut lines: Vec<String> = Vec::new();
        for word in text.as_ref().split_whitespace() {
            match lines.last_mut() {
                // One character is kept for the sign that the sentence goes on.
                Some(line) if line.chars().count() + 1 + word.chars().count() < Self::MAX_CHARS => {
                    line.push(' ');
                    line.push_str(word);
                }
                Some(line) => {
                    line.push('…');
                    lines.push(format!("…{word}"));
                }
                None => lines.push(word.to_owned()),
            }
        }
        lines.into_iter().map(Self::new).collect()
    }

    /// The warnings that the API server passes on whole: all of them, or the first ones and how many are
    /// left out. From 4096 characters in all on it cuts and drops
    /// (`kubernetes/apiserver pkg/endpoints/filters/warning.go`).
    pub fn bounded(mut warnings: Vec<Self>) -> Vec<Self> {
        let mut seen = std::collections::BTreeSet::new();
        warnings.retain(|warning| seen.insert(warning.clone()));
        let mut total = 0;
        let fitting = warnings.iter().take_while(|warning| {
            total += warning.0.chars().count();
            total <= Self::MAX_TOTAL
        });
        let fitting = fitting.count();
        let more = warnings.len() - fitting;
        if more > 0 {
            warnings.truncate(fitting);
            warnings
                .push(Self::new(format!("and {more} more lines; `devgrant explain -f` shows all")));
        }
        warnings
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_one_short_line() {
        assert_eq!(Warning::new("a\nb\tc").as_str(), "a b c");
        let long = Warning::new("ä".repeat(300));
        assert_eq!(long.as_str().chars().count(), Warning::MAX_CHARS);
        assert!(long.as_str().ends_with('…'));
    }

    #[test]
    fn long_sentences_go_on_in_the_next_line() {
        let sentence = "word ".repeat(60);
        let lines = Warning::lines(&sentence);
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| line.as_str().chars().count() <= Warning::MAX_CHARS));
        let together: Vec<&str> =
            lines.iter().map(|line| line.as_str().trim_matches('…')).collect();
        assert_eq!(together.join(" "), sentence.trim());
        assert!(Warning::lines("").is_empty());
        let many = Warning::bounded((0..100).map(|n| Warning::new(format!("{n:0>100}"))).collect());
        assert_eq!(many.len(), 40, "39 of 100 characters, and how many are left out");
        assert_eq!(Warning::bounded(vec![Warning::new("a"), Warning::new("a")]).len(), 1);
        assert_eq!(Warning::lines("x".repeat(500)).len(), 1);
    }
}
