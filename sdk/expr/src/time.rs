//! Converts days and seconds to calendar fields: proleptic Gregorian, no leap seconds. The
//! algorithms are those of Howard Hinnant's `chrono`-compatible date paper.

/// Microseconds per day.
pub(crate) const DAY_US: i64 = 86_400_000_000;

/// The year, month and day of a number of days since 1970-01-01.
pub(crate) fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}

/// The number of days since 1970-01-01 of a date, if the date exists.
pub(crate) fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(-9_999..=9_999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let y = year - i64::from(month <= 2);
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let mp = (month + 9) % 12;
    let doy = (153 * mp + 2) / 5 + day - 1;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    let found = era * 146_097 + doe - 719_468;
    (civil(found) == (year, month, day)).then_some(found)
}

fn digits(text: &[u8], count: usize) -> Option<(i64, &[u8])> {
    let (head, rest) = text.split_at_checked(count)?;
    let mut value = 0;
    for byte in head {
        value = value * 10 + i64::from(byte.is_ascii_digit().then(|| byte - b'0')?);
    }
    Some((value, rest))
}

/// `YYYY-MM-DD` as days since 1970-01-01.
pub fn parse_date(text: &str) -> Option<i64> {
    match date(text.as_bytes())? {
        (days, []) => Some(days),
        _ => None,
    }
}

fn date(text: &[u8]) -> Option<(i64, &[u8])> {
    let (year, rest) = digits(text, 4)?;
    let (month, rest) = digits(rest.strip_prefix(b"-")?, 2)?;
    let (day, rest) = digits(rest.strip_prefix(b"-")?, 2)?;
    Some((days(year, month, day)?, rest))
}

/// `YYYY-MM-DD[T ]HH:MM[:SS[.f…]][Z]`, or a date alone, as microseconds since
/// 1970-01-01, and whether it ended in `Z`.
pub fn parse_timestamp(text: &str) -> Option<(i64, bool)> {
    let (days, rest) = date(text.as_bytes())?;
    let midnight = days.checked_mul(DAY_US)?;
    if rest.is_empty() {
        return Some((midnight, false));
    }
    let rest = rest.strip_prefix(b"T").or_else(|| rest.strip_prefix(b" "))?;
    let (hour, rest) = digits(rest, 2)?;
    let (minute, mut rest) = digits(rest.strip_prefix(b":")?, 2)?;
    let mut micros = (hour * 60 + minute) * 60_000_000;
    let mut second = 0;
    if let Some(after) = rest.strip_prefix(b":") {
        (second, rest) = digits(after, 2)?;
        micros += second * 1_000_000;
        if let Some(mut fraction) = rest.strip_prefix(b".") {
            let mut scale = 100_000;
            while let Some((byte, after)) = fraction.split_first().filter(|(byte, _)| byte.is_ascii_digit()) {
                micros += i64::from(byte - b'0') * scale;
                scale /= 10;
                fraction = after;
            }
            rest = fraction;
        }
    }
    let utc = rest == b"Z";
    (hour < 24 && minute < 60 && second < 60 && (utc || rest.is_empty())).then_some((midnight + micros, utc))
}
