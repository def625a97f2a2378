//! Patterns of `like`.

/// `%` for any text, `_` for one character.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pattern(Vec<char>);

impl Pattern {
    pub(crate) fn new(pattern: &str) -> Self {
        Self(pattern.chars().collect())
    }

    /// Greedy with one point to backtrack to: linear in the text times the pattern, for any
    /// pattern.
    pub(crate) fn matches(&self, text: &str) -> bool {
        let pattern = &self.0;
        let mut chars = text.chars();
        let mut p = 0;
        let mut retry: Option<(usize, std::str::Chars<'_>)> = None;
        loop {
            if pattern.get(p) == Some(&'%') {
                p += 1;
                retry = Some((p, chars.clone()));
                continue;
            }
            let mut ahead = chars.clone();
            match (ahead.next(), pattern.get(p)) {
                (None, None) => return true,
                (Some(c), Some(want)) if *want == '_' || *want == c => {
                    chars = ahead;
                    p += 1;
                }
                _ => {
                    let Some((from, at)) = &mut retry else { return false };
                    if at.next().is_none() {
                        return false;
                    }
                    p = *from;
                    chars = at.clone();
                }
            }
        }
    }
}
