//! Durations and sizes as people write them.

use std::time::Duration;

/// Reads `5s`, `500ms`, `2m` or `1h`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        _ => 0,
    };
    number
        .parse::<u64>()
        .ok()
        .filter(|_| millis != 0)
        .and_then(|number| number.checked_mul(millis))
        .map(Duration::from_millis)
        .ok_or_else(|| {
            format!(
                "`{text}` is no duration; write a whole number and ms, s, m or h: 500ms, 5s, 2m"
            )
        })
}

/// Reads `7340032`, `7168Ki` or `7Mi`.
pub(super) fn bytes(text: &str) -> Result<usize, String> {
    let (number, unit) = split(text);
    let factor = match unit {
        "" => 1,
        "Ki" => 1024,
        "Mi" => 1024 * 1024,
        _ => 0,
    };
    number
        .parse::<usize>()
        .ok()
        .filter(|_| factor != 0)
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(|| {
            format!("`{text}` is no size; write a whole number of bytes, or with Ki or Mi: 7Mi")
        })
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_durations() {
        for (text, millis) in
            [("500ms", 500), ("5s", 5000), ("2m", 120_000), ("1h", 3_600_000), ("0s", 0)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in [
            "",
            "5",
            "s",
            "-1s",
            "1.5s",
            "5 s",
            "99999999999999999999s",
            "9999999999999999999h",
            "5d",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn reads_sizes() {
        for (text, size) in [("0", 0), ("100", 100), ("1Ki", 1024), ("7Mi", 7 * 1024 * 1024)] {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        for text in ["", "Mi", "7MB", "1.5Mi", "-1"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
