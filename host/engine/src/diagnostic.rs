//! Errors in a pipeline, with their spans in its file.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// A file that spans point into.
#[derive(Debug, PartialEq, Eq)]
pub struct PipelineFile {
    /// The path that the user gave.
    pub path: PathBuf,
    /// Its content.
    pub text: String,
}

/// A range of bytes in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The file.
    pub file: Arc<PipelineFile>,
    /// In bytes.
    pub range: Range<usize>,
}

/// One error of the user: what is wrong, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong.
    pub message: String,
    /// The spans that it is about, each with a label for the margin.
    pub spans: Vec<(Span, String)>,
    /// What to do.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A diagnostic without a span.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), spans: Vec::new(), help: None }
    }

    /// Adds a span.
    #[must_use]
    pub fn at(mut self, span: &Span, label: impl Into<String>) -> Self {
        self.spans.push((span.clone(), label.into()));
        self
    }

    /// Adds the help.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Suggests the nearest of the existing names, or lists them when none is near and they
    /// are few.
    #[must_use]
    pub fn suggest<'a>(mut self, name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Self {
        let candidates: Vec<&str> = candidates.into_iter().collect();
        self.help = match nearest(name, candidates.iter().copied()) {
            Some(nearest) => Some(format!("did you mean `{nearest}`?")),
            None if candidates.is_empty() => self.help,
            None if candidates.len() <= 24 => Some(format!("there are {}", listed(&candidates))),
            None => Some(format!("there are {} and {} more", listed(&candidates[..24]), candidates.len() - 24)),
        };
        self
    }
}

fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The existing name that was probably meant.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    let scored = candidates.into_iter().map(|candidate| {
        let other = candidate.to_lowercase();
        let prefix = lower.len() >= 3 && (other.starts_with(&lower) || lower.starts_with(&other));
        let score = strsim::jaro_winkler(&lower, &other) + if prefix { 0.1 } else { 0.0 };
        (score, candidate)
    });
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(a.1)))?;
    (best.0 > 0.82).then_some(best.1)
}

/// A span inside a quoted text of the file; that of the complete text if it has escapes.
pub(crate) fn narrow(outer: &Span, span: (usize, usize)) -> Span {
    let Some(text) = outer.file.text.get(outer.range.clone()) else { return outer.clone() };
    let quoted = text.len() >= 2
        && (text.starts_with('"') || text.starts_with('\''))
        && !text.contains('\\')
        && !text.starts_with("\"\"\"");
    let start = outer.range.start + 1 + span.0;
    let end = (outer.range.start + 1 + span.1).max(start + 1);
    if !quoted
        || end > outer.range.end
        || !outer.file.text.is_char_boundary(start)
        || !outer.file.text.is_char_boundary(end)
    {
        return outer.clone();
    }
    Span { file: outer.file.clone(), range: start..end }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_offered_and_a_far_one_is_not() {
        let names = ["tenure", "monthly_charges", "total_charges"];
        assert_eq!(nearest("tenur", names), Some("tenure"));
        assert_eq!(nearest("MonthlyCharges", names), Some("monthly_charges"));
        assert_eq!(nearest("zip", names), None);
    }
}
