//! What is wrong with a pipeline, and where it is written.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// A file that places point into.
#[derive(Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// As the user named it.
    pub path: PathBuf,
    /// Its content.
    pub text: String,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: Arc<SourceFile>,
    /// In bytes.
    pub range: Range<usize>,
}

/// One mistake: what, where, what there is, what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong.
    pub message: String,
    /// Where, with a few words for the margin.
    pub places: Vec<(Place, String)>,
    /// What to do.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A mistake without a place.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), places: Vec::new(), help: None }
    }

    /// Points to a place.
    #[must_use]
    pub fn at(mut self, place: &Place, label: impl Into<String>) -> Self {
        self.places.push((place.clone(), label.into()));
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Offers the nearest of the names that there are, or lists them when none
    /// is near and they are few.
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

/// The name that was probably meant.
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
