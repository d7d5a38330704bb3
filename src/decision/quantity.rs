//! Amounts of an extended resource, as Kubernetes quantities spell them.

use std::cmp::Ordering;

/// An amount in thousandths, the smallest step that `kubernetes/apimachinery pkg/api/resource`
/// compares extended resources by. Saturates far above any amount of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Quantity {
    thousandths: i128,
}

/// Whether a resource is an extended one, which stands for devices: neither Kubernetes' own, such as cpu,
/// nor in its domain.
pub fn is_extended(resource: &str) -> bool {
    resource.contains('/') && !resource.contains("kubernetes.io/")
}

/// The largest amount: what Kubernetes itself can hold of whole things.
const MOST: i128 = i64::MAX as i128 * 1000;

impl Quantity {
    /// A whole number of devices.
    pub fn whole(count: u32) -> Self {
        Self { thousandths: i128::from(count) * 1000 }
    }

    /// Reads `1`, `1000m`, `1k`, `1e0`, `2Ki` and so on; `None` is no quantity.
    ///
    /// The grammar is `kubernetes/apimachinery pkg/api/resource/quantity.go`, `Quantity`.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, digits) = match text.strip_prefix(['+', '-']) {
            Some(rest) => (text.starts_with('-'), rest),
            None => (false, text),
        };
        let end =
            digits.find(|char: char| !char.is_ascii_digit() && char != '.').unwrap_or(digits.len());
        let (number, suffix) = digits.split_at_checked(end)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.len() + fraction.len() == 0 || fraction.contains('.') {
            return None;
        }
        let (scale, power) = multiplier(suffix)?;
        // The digits as one integer, then the point and the suffix as one power of ten.
        let digits = whole.bytes().chain(fraction.bytes());
        let mantissa = digits.fold(0_i128, |mantissa, digit| {
            mantissa.saturating_mul(10).saturating_add(i128::from(digit.saturating_sub(b'0')))
        });
        let power = power + 3 - i32::try_from(fraction.len()).ok()?;
        let scaled = mantissa.saturating_mul(scale);
        let thousandths = match power.cmp(&0) {
            Ordering::Less => round_up(scaled, power.unsigned_abs()),
            Ordering::Equal | Ordering::Greater => {
                scaled.saturating_mul(10_i128.saturating_pow(power.unsigned_abs()))
            }
        };
        // Above it nothing is counted, so that an amount prints as what it is read from.
        let thousandths = thousandths.min(MOST);
        Some(Self { thousandths: if negative { -thousandths } else { thousandths } })
    }

    /// Whether there is anything of it: the kubelet allocates nothing for zero
    /// (`kubernetes pkg/kubelet/cm/devicemanager/manager.go`).
    pub fn is_positive(self) -> bool {
        self.thousandths > 0
    }

    /// The smallest whole number that is not less.
    #[must_use]
    pub fn round_up(self) -> Self {
        let missing = (1000 - self.thousandths.rem_euclid(1000)) % 1000;
        Self { thousandths: self.thousandths.saturating_add(missing) }
    }

    /// The smallest whole number that is not less, as text.
    pub fn to_whole(self) -> String {
        self.round_up().thousandths.div_euclid(1000).to_string()
    }
}

/// The factor and the power of ten of a suffix.
fn multiplier(suffix: &str) -> Option<(i128, i32)> {
    Some(match suffix {
        "" => (1, 0),
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        exponent => {
            let power = exponent.strip_prefix(['e', 'E'])?;
            (1, power.parse::<i8>().ok()?.into())
        }
    })
}

/// `value / 10^power`, away from zero, as Kubernetes rounds what it cannot hold.
fn round_up(value: i128, power: u32) -> i128 {
    match 10_i128.checked_pow(power) {
        Some(divisor) => value / divisor + i128::from(value % divisor != 0),
        None => i128::from(value != 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_api_server_accepts() {
        for (text, whole) in [
            ("1", "1"),
            ("1000m", "1"),
            ("1500m", "2"),
            ("1k", "1000"),
            ("1e0", "1"),
            ("1E2", "100"),
            ("2Ki", "2048"),
            ("0.5", "1"),
            (".5", "1"),
            ("1.", "1"),
            ("+3", "3"),
            ("-1", "-1"),
            ("0", "0"),
            ("1n", "1"),
            ("007", "7"),
        ] {
            assert_eq!(
                Quantity::parse(text).map(Quantity::to_whole).as_deref(),
                Some(whole),
                "{text}"
            );
        }
        for text in ["", "one", "\"1\"", "1x", "--1", "1.2.3", ".", "m", "1e", "1e999", "null", "ä"]
        {
            assert_eq!(Quantity::parse(text), None, "{text}");
        }
    }

    #[test]
    fn prints_what_reads_back_the_same() {
        for text in ["1", "1500m", "99999999999999999999E", "9223372036854775808", "-3"] {
            let amount = Quantity::parse(text).unwrap().round_up();
            assert_eq!(Quantity::parse(&amount.to_whole()), Some(amount), "{text}");
        }
    }

    #[test]
    fn compares_as_numbers() {
        let parse = |text| Quantity::parse(text).unwrap();
        assert_eq!(parse("1000m"), Quantity::whole(1));
        assert!(parse("999m") < Quantity::whole(1));
        assert!(parse("99999999999999999999999999999999999999999999E") > Quantity::whole(u32::MAX));
        assert!(!parse("0").is_positive());
        assert!(!parse("-1").is_positive());
    }
}
