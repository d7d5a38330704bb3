//! `?timeout=`: how long the caller waits.

use std::time::Duration;

/// The caller's timeout in a query, as the API server writes it: `timeout=10s`.
///
/// One that cannot be read counts as none. The caller has its own clock and gives up by itself; to
/// refuse every review since some day's API server writes durations in another way would be worse.
pub(super) fn of(query: Option<&str>) -> Option<Duration> {
    query?.split('&').find_map(|pair| pair.strip_prefix("timeout=")).and_then(go_duration)
}

/// A duration as Go prints it: `10s`, `1m30s`, `1.5s`, `500ms` (`time.Duration.String`).
fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let number = rest.find(|char: char| !(char.is_ascii_digit() || char == '.'))?;
        let (digits, tail) = rest.split_at_checked(number)?;
        let unit =
            tail.find(|char: char| char.is_ascii_digit() || char == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(unit)?;
        let scale = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            // The micro sign of a query is percent-encoded.
            "us" | "µs" | "%C2%B5s" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        seconds += digits.parse::<f64>().ok()? * scale;
        rest = tail;
    }
    if text.is_empty() {
        return None;
    }
    // More than a day is no deadline, and would only overflow a clock.
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|duration| *duration <= Duration::from_hours(24))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_prints() {
        for (query, milliseconds) in [
            ("timeout=10s", 10_000),
            ("a=b&timeout=5s&c=d", 5_000),
            ("timeout=1m30s", 90_000),
            ("timeout=1.5s", 1_500),
            ("timeout=250ms", 250),
            ("timeout=1h0m0s", 3_600_000),
            ("timeout=0s", 0),
        ] {
            let expected = Some(Duration::from_millis(milliseconds));
            assert_eq!(of(Some(query)), expected, "{query}");
        }
    }

    #[test]
    fn what_cannot_be_read_counts_as_none() {
        for query in [
            "",
            "timeout",
            "timeout=",
            "timeout=10",
            "timeout=s",
            "timeout=-1s",
            "timeout=1.2.3s",
            "timeout=1y",
            "timeout=1e9s",
            "timeout=inf",
            "timeout=99999999999999999h",
            "timeout=10s%00",
            "xtimeout=1s",
        ] {
            assert_eq!(of(Some(query)), None, "{query}");
        }
        assert_eq!(of(None), None);
    }
}
