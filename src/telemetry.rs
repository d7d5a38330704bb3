//! The log: lines for machines or for people, on standard error.

use std::panic;

use tracing_subscriber::EnvFilter;

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
    /// The level is no level.
    #[error(
        "`{level}` is no log level (--log-level): {problem}; write error, warn, info, debug or trace, or a list such as `info,devgrant=debug`"
    )]
    Level {
        /// What was given.
        level: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// Sends the log of this process to standard error, from `level` on.
///
/// Panics are logged too, by their place. A panic's text may quote the pod that led to it, and pod
/// contents do not belong into a log, so only text that stands in our source is shown.
pub fn start(format: Format, level: &str) -> Result<(), Error> {
    let filter = EnvFilter::try_new(level).map_err(|problem| Error::Level {
        level: level.to_owned(),
        problem: problem.to_string(),
    })?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let set = match format {
        Format::Json => log.json().flatten_event(true).try_init(),
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
pub fn shown(text: &str) -> String {
    let mut chars = text.chars();
    let mut shown: String = chars
        .by_ref()
        .take(MAX_CHARS)
        .map(|char| if visible(char) { char } else { '\u{fffd}' })
        .collect();
    if chars.next().is_some() {
        shown.push('…');
    }
    shown
}

/// The longest text that is shown whole: twice the longest name in Kubernetes, so that a sentence
/// which quotes one stays whole too.
const MAX_CHARS: usize = 512;

/// Whether a character shows as itself: no control character, no line or paragraph separator, none
/// that changes the direction of what follows, no zero-width one.
fn visible(char: char) -> bool {
    !char.is_control()
        && !matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
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
            ("größe", "größe"),
        ] {
            assert_eq!(super::shown(text), shown);
        }
        let long = shown(&"x".repeat(100_000));
        assert_eq!(long.chars().count(), MAX_CHARS + 1);
    }

    #[test]
    fn a_bad_level_names_the_flag() {
        let error = start(Format::Text, "devgrant=loud").unwrap_err();
        assert!(error.to_string().contains("--log-level"), "{error}");
    }
}
