//! Amounts, failures and reasons in words.

use millrace_engine::Failure;
use millrace_engine::types::{ByteSize, Fuel};
use millrace_engine::why::{Difference, MissReason};

/// A duration as people say it.
pub fn duration(microseconds: u64) -> String {
    match microseconds {
        0..1_000 => format!("{microseconds} µs"),
        1_000..1_000_000 => format!("{:.1} ms", microseconds as f64 / 1e3),
        1_000_000..60_000_000 => format!("{:.2} s", microseconds as f64 / 1e6),
        _ => format!("{} min {:.0} s", microseconds / 60_000_000, (microseconds % 60_000_000) as f64 / 1e6),
    }
}

/// A number with its thousands apart.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The name of a task.
pub fn task(step: &str, part: Option<usize>) -> String {
    part.map_or_else(|| step.to_owned(), |part| format!("{step} · part {part}"))
}

fn at(backtrace: &[String]) -> String {
    backtrace.iter().map(|name| format!("\n    at {name}")).collect()
}

/// A failure, and what to do about it.
pub fn failure(failure: &Failure) -> String {
    match failure {
        Failure::Step { message, column, row } => {
            let column = column.as_ref().map_or_else(String::new, |column| format!(" (column `{column}`"));
            let row = row.map_or_else(String::new, |row| format!("row {row} of the part"));
            let place = match (column.is_empty(), row.is_empty()) {
                (true, true) => String::new(),
                (true, false) => format!(" ({row})"),
                (false, true) => format!("{column})"),
                (false, false) => format!("{column}, {row})"),
            };
            format!("{message}{place}")
        }
        Failure::Trap { message, backtrace } => format!("the guest stopped: {message}{}", at(backtrace)),
        Failure::Misuse { message } => {
            format!(
                "the component broke the rules of the step world: {message}\n    this is a mistake in the step, not in the pipeline"
            )
        }
        Failure::Memory { limit, wanted, backtrace } => format!(
            "it needed {wanted} of memory, and its limit is {limit}\n    try `limits = {{ memory = \"{}\" }}` in this step{}",
            ByteSize((wanted.0 * 3 / 2).next_power_of_two().max(1 << 20)),
            at(backtrace)
        ),
        Failure::Fuel { limit, backtrace } => format!(
            "it used up its fuel of {limit}\n    if it is not caught in a loop, try `limits = {{ fuel = \"{}\" }}` in this step{}",
            Fuel(limit.0.saturating_mul(4).max(1_000_000)),
            at(backtrace)
        ),
        Failure::Time { limit, backtrace } => format!(
            "it took longer than its {}\n    if it is not caught in a loop, try `limits = {{ time = \"{}s\" }}` in this step{}",
            duration(limit.as_micros() as u64),
            limit.as_secs().max(1) * 4,
            at(backtrace)
        ),
        Failure::Cancelled => "stopped by the user".to_owned(),
        Failure::Host { message } => format!("the host could not do its part: {message}"),
    }
}

fn difference(difference: &Difference) -> String {
    let value = |value: &Option<serde_json::Value>| value.as_ref().map_or("nothing".to_owned(), ToString::to_string);
    match difference {
        Difference::Code { old, new } => format!("the component changed (b3:{old}… → b3:{new}…)"),
        Difference::Param { path, old, new } => {
            format!("the param `{path}` changed from {} to {}", value(old), value(new))
        }
        Difference::Column { port, column, parts, of } => {
            format!("the column `{column}` of `{port}` changed in {parts} of {of} parts")
        }
        Difference::ColumnAdded { port, column } => format!("it now reads the column {column} of `{port}`"),
        Difference::ColumnRemoved { port, column } => format!("it no longer reads the column {column} of `{port}`"),
        Difference::Rows { port, old, new } => {
            format!("`{port}` had {} rows in {} parts, and now has {} in {}", count(old.0), old.1, count(new.0), new.1)
        }
        Difference::Blob { port, instance: None } => format!("the blob on `{port}` changed"),
        Difference::Blob { port, instance: Some(instance) } => format!("the blob of {instance} on `{port}` changed"),
        Difference::Connection { port } => format!("something else is connected to `{port}`"),
        Difference::Partials { changed, of } => format!("the results of {changed} of {of} parts changed"),
        Difference::Grant { name } => {
            let (kind, name) = name.split_once(':').unwrap_or(("", name));
            let what = if kind == "env" { "variable" } else { "folder" };
            format!("the granted {what} `{name}` changed")
        }
        Difference::Other => "something else in its key changed".to_owned(),
    }
}

/// Why there was no record to use, one line for each reason.
pub fn reason(reason: &MissReason) -> Vec<String> {
    match reason {
        MissReason::New => vec!["nothing like it ran before".to_owned()],
        MissReason::Gone => {
            vec!["its key is the same; its record was gone, damaged, too old or not to be used".to_owned()]
        }
        MissReason::Expired => vec!["its record is older than `max-age`".to_owned()],
        MissReason::CacheOff => vec!["its cache is off".to_owned()],
        MissReason::Changed(all) if all.is_empty() => {
            vec!["its key changed, and the record of the run before is gone".to_owned()]
        }
        MissReason::Changed(all) => {
            let mut lines: Vec<String> = all.iter().take(12).map(difference).collect();
            if all.len() > 12 {
                lines.push(format!("and {} more", all.len() - 12));
            }
            lines
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_well() {
        assert_eq!(duration(999), "999 µs");
        assert_eq!(duration(12_345), "12.3 ms");
        assert_eq!(duration(125_000_000), "2 min 5 s");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(12), "12");
    }
}
