//! Amounts with units: bytes, fuel, time, and the limits made of them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A text that is not an amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct AmountError {
    /// The text.
    pub text: String,
    /// What was expected, with an example.
    pub expected: &'static str,
}

/// Bytes. Written `512MiB`, `2GB`, `1000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ByteSize(pub u64);

/// Units of work in a guest, about one for each WebAssembly instruction.
/// Written `20G`, `500M`, `1000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fuel(pub u64);

/// `number unit` with a factor for each unit; `None` for other text, negative amounts and those
/// beyond 64 bits.
fn amount(text: &str, factor: impl Fn(&str) -> Option<u64>) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '_')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor = factor(unit.trim())?;
    let number = number.replace('_', "");
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    let value = number.parse::<f64>().ok()? * factor as f64;
    (value.is_finite() && (0.0..1.8e19).contains(&value)).then_some(value as u64)
}

impl FromStr for ByteSize {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        amount(text, |unit| {
            Some(match unit.to_ascii_lowercase().as_str() {
                "" | "b" => 1,
                "kib" | "k" => 1 << 10,
                "mib" | "m" => 1 << 20,
                "gib" | "g" => 1 << 30,
                "tib" | "t" => 1 << 40,
                "kb" => 1_000,
                "mb" => 1_000_000,
                "gb" => 1_000_000_000,
                "tb" => 1_000_000_000_000,
                _ => return None,
            })
        })
        .map(Self)
        .ok_or_else(|| AmountError { text: text.to_owned(), expected: "an amount of memory, such as `512MiB`" })
    }
}

impl FromStr for Fuel {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        amount(text, |unit| {
            Some(match unit {
                "" => 1,
                "k" | "K" => 1_000,
                "M" => 1_000_000,
                "G" => 1_000_000_000,
                "T" => 1_000_000_000_000,
                _ => return None,
            })
        })
        .map(Self)
        .ok_or_else(|| AmountError { text: text.to_owned(), expected: "an amount of fuel, such as `20G`" })
    }
}

/// A duration written `30s`, `500ms`, `5m`, `2h`, `7d`.
///
/// # Errors
/// [`AmountError`] when the text is not such a duration.
pub fn parse_duration(text: &str) -> Result<Duration, AmountError> {
    amount(text, |unit| {
        Some(match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        })
    })
    .map(Duration::from_millis)
    .ok_or_else(|| AmountError { text: text.to_owned(), expected: "a duration, such as `30s`" })
}

fn scaled(f: &mut fmt::Formatter<'_>, value: u64, base: u64, units: &[&str]) -> fmt::Result {
    let mut size = value as f64;
    let mut unit = 0;
    while size >= base as f64 && unit + 1 < units.len() {
        size /= base as f64;
        unit += 1;
    }
    if size.fract() == 0.0 || unit == 0 {
        write!(f, "{size:.0}{}", units[unit])
    } else {
        write!(f, "{size:.1}{}", units[unit])
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        scaled(f, self.0, 1024, &["B", "KiB", "MiB", "GiB", "TiB"])
    }
}

impl fmt::Display for Fuel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        scaled(f, self.0, 1000, &["", "k", "M", "G", "T"])
    }
}

/// What a task may use. Not part of the action key: a limit decides whether a
/// task finishes, never what it produces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Linear memory of the guest.
    pub memory: ByteSize,
    /// Work of the guest.
    pub fuel: Fuel,
    /// Time from the start of the task.
    pub time: Duration,
}

/// Limits that a pipeline or a manifest sets; those it does not set come from elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DeclaredLimits {
    /// Linear memory of the guest.
    pub memory: Option<ByteSize>,
    /// Work of the guest.
    pub fuel: Option<Fuel>,
    /// Time from the start of the task, in milliseconds.
    pub time_ms: Option<u64>,
}

impl DeclaredLimits {
    /// These limits, with those of `other` where none is set here.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let Self { memory, fuel, time_ms } = self;
        Self { memory: memory.or(other.memory), fuel: fuel.or(other.fuel), time_ms: time_ms.or(other.time_ms) }
    }

    /// These limits, with the defaults where none is set.
    pub fn or_default(self) -> Limits {
        let default = Limits::default();
        Limits {
            memory: self.memory.unwrap_or(default.memory),
            fuel: self.fuel.unwrap_or(default.fuel),
            time: self.time_ms.map_or(default.time, Duration::from_millis),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: ByteSize(512 << 20), fuel: Fuel(200_000_000_000), time: Duration::from_secs(600) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_as_people_write_them() {
        assert_eq!("512MiB".parse(), Ok(ByteSize(512 << 20)));
        assert_eq!("1.5 GiB".parse(), Ok(ByteSize(3 << 29)));
        assert_eq!("2GB".parse(), Ok(ByteSize(2_000_000_000)));
        assert_eq!("20G".parse(), Ok(Fuel(20_000_000_000)));
        assert_eq!("1_000".parse(), Ok(Fuel(1_000)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
    }

    #[test]
    fn text_that_is_not_an_amount_is_refused() {
        for text in ["", "MiB", "-1", "1e400G", "12 parsecs", "99999999999999999999", "1..2"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
            assert!(text.parse::<Fuel>().is_err(), "{text}");
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_printed_amount_reads_back() {
        for size in [0, 1, 1023, 1024, 512 << 20, 3 << 29] {
            assert_eq!(ByteSize(size).to_string().parse(), Ok(ByteSize(size)));
        }
        assert_eq!(Fuel(1_500_000_000).to_string(), "1.5G");
    }
}
