//! The log: lines for machines or for people, on standard error.

mod line;

use std::borrow::Cow;
use std::panic;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::decision::spelling;

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// One JSON object a line.
    #[default]
    Json,
    /// For a person at a terminal.
    Text,
}

/// A log that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is a log in this process already.
    #[error("the log is set up twice")]
    AlreadySet,
}

/// Which lines are written: a level, or a list of levels and of directives for parts of the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level(String);

/// The levels, by name. Their numbers are read too.
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // To the filter a bare word that is no level names a part of the program, and everything else
        // falls silent.
        let parts = text.split(',').map(str::trim);
        let words = parts.filter(|part| !part.contains(['=', '[']));
        for word in words {
            if word.parse::<LevelFilter>().is_err() {
                // `warning` and `err` are what other programs call them.
                let lower = word.to_lowercase();
                let alike =
                    |level: &&str| lower.starts_with(level) || level.starts_with(lower.as_str());
                let near = spelling::nearest(word, LEVELS);
                let near = near.or_else(|| LEVELS.into_iter().find(alike));
                let near = near.map(|near| format!("; did you mean `{near}`")).unwrap_or_default();
                return Err(format!(
                    "`{word}` is no log level{near}; write {}, or a list such as `info,devgrant=debug`",
                    spelling::list(LEVELS)
                ));
            }
        }
        EnvFilter::try_new(text).map_err(|problem| {
            format!(
                "`{text}` is no log level: {problem}; write {}, or a list such as `info,devgrant=debug`",
                spelling::list(LEVELS)
            )
        })?;
        Ok(Self(text.to_owned()))
    }
}

/// Sends the log of this process to standard error, from `level` on. A line that cannot be written,
/// since nobody reads any more or the disk is full, is dropped in silence: the server goes on.
///
/// Panics are logged too, by their place. A panic's text may quote the pod that led to it, and pod
/// contents do not belong into a log, so only text that stands in our source is shown.
pub fn start(format: Format, level: &Level) -> Result<(), Error> {
    // A level that was read has no directive that could be bad.
    // kube's own line for each call that fails has not the cause; ours has.
    let filter = EnvFilter::new(format!("kube_client::client::builder=off,{}", level.0));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // It would report a line that cannot be written by `eprintln!`, which panics for the same
        // reason, and a panic in the panic hook aborts the process.
        .log_internal_errors(false);
    let set = match format {
        Format::Json => log.event_format(line::JsonLine).try_init(),
        // Colours are for a terminal; in a file they are noise.
        Format::Text => {
            log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init()
        }
    };
    set.map_err(|_| Error::AlreadySet)?;
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let text = panic.payload().downcast_ref::<&'static str>();
        tracing::error!(place, text, "panic");
    }));
    Ok(())
}

/// Text that came from a caller, as it is shown in a log: on one line, and short.
///
/// Without this whoever sends a review could write log lines of their own, move the cursor of the
/// operator's terminal, or fill the disk. Log it as text and not by `Display`, so that the text
/// format puts it in quotes and no name can look like a field.
pub fn shown(text: &str) -> Cow<'_, str> {
    // As nearly all names are.
    if text.len() <= MAX_CHARS && text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Cow::Borrowed(text);
    }
    let mut chars = text.chars();
    let mut shown: String = chars
        .by_ref()
        .take(MAX_CHARS)
        .map(|char| if is_visible(char) { char } else { '\u{fffd}' })
        .collect();
    if chars.next().is_some() {
        shown.push('…');
    }
    Cow::Owned(shown)
}

/// The longest text that is shown whole: twice the longest name in Kubernetes, so that a sentence
/// which quotes one stays whole too.
const MAX_CHARS: usize = 512;

/// Whether a character shows as itself: no control character, no line or paragraph separator, none
/// that changes the direction of what follows, none that takes no room (Unicode's `Bidi_Control` and
/// `Default_Ignorable_Code_Point`), no mark of an annotation between lines.
pub(crate) fn is_visible(char: char) -> bool {
    !char.is_control()
        && !matches!(
            char,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_text_of_a_caller_on_one_short_line() {
        for (text, shown) in [
            ("web-7d4b9", "web-7d4b9"),
            ("a\nlevel=error b", "a\u{fffd}level=error b"),
            ("\u{1b}[2J", "\u{fffd}[2J"),
            ("\u{202e}evil", "\u{fffd}evil"),
            ("\u{61c}\u{ad}\u{3164}\u{e0001}", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
            ("größe", "größe"),
        ] {
            assert_eq!(super::shown(text), shown);
        }
        let long = "x".repeat(100_000);
        assert_eq!(shown(&long).chars().count(), MAX_CHARS + 1);
    }

    #[test]
    fn a_word_that_is_no_level_is_refused() {
        for (text, sentence) in [
            ("banana", "`banana` is no log level; write `error`, "),
            ("inof", "; did you mean `info`; "),
            ("warning", "; did you mean `warn`; "),
            ("ERR", "; did you mean `error`; "),
            ("info,devgrant", "`devgrant` is no log level"),
            ("devgrant=loud", "`devgrant=loud` is no log level: "),
        ] {
            let error = text.parse::<Level>().unwrap_err();
            assert!(error.contains(sentence), "{text}: {error}");
        }
        for text in ["info", "WARN", "off", "", "info,devgrant=debug", "[request{uid}]=debug"] {
            assert!(text.parse::<Level>().is_ok(), "{text}");
        }
    }
}
