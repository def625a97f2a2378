//! The steps in topological order.

use std::collections::HashMap;

use super::builder::Builder;
use crate::diagnostic::{Diagnostic, Span};
use crate::pipeline::{Pick, Reference, Step};

impl Builder<'_> {
    /// The steps that a step refers to. Only the name before `.` and `[` is needed, so
    /// placeholders need no value yet.
    fn depends(&self, step: &Step, indices: &HashMap<&str, usize>) -> Vec<(usize, Span)> {
        let mut found = Vec::new();
        for (_, text, span) in &step.inputs {
            let Ok(reference) = Reference::parse(&plain(text)) else { continue };
            let mut names = vec![reference.name];
            if let Pick::Chosen(choice) = reference.pick {
                names.push(choice);
            }
            for name in names {
                if let Some(index) = indices.get(name.as_str()) {
                    found.push((*index, span.clone()));
                }
            }
        }
        found
    }

    /// The steps in topological order; `None` if they form a cycle, which is reported.
    pub(super) fn order(&mut self) -> Option<Vec<usize>> {
        let count = self.pipeline.steps.len();
        let indices: HashMap<&str, usize> =
            self.pipeline.steps.iter().enumerate().map(|(index, step)| (step.name.as_str(), index)).collect();
        let depends: Vec<Vec<(usize, Span)>> =
            self.pipeline.steps.iter().map(|step| self.depends(step, &indices)).collect();
        let mut order = Vec::with_capacity(count);
        // 0: not visited, 1: on the path, 2: done.
        let mut state = vec![0u8; count];
        for start in 0..count {
            if state[start] != 0 {
                continue;
            }
            let mut path = vec![(start, 0)];
            state[start] = 1;
            while let Some((step, next)) = path.last_mut() {
                let Some((needed, span)) = depends[*step].get(*next) else {
                    state[*step] = 2;
                    order.push(*step);
                    path.pop();
                    continue;
                };
                *next += 1;
                match state[*needed] {
                    0 => {
                        state[*needed] = 1;
                        path.push((*needed, 0));
                    }
                    1 => {
                        let from = path.iter().position(|(step, _)| step == needed).unwrap_or(0);
                        let mut names: Vec<&str> =
                            path[from..].iter().map(|(step, _)| self.pipeline.steps[*step].name.as_str()).collect();
                        names.push(self.pipeline.steps[*needed].name.as_str());
                        names.reverse();
                        let chain = names.join("` → `");
                        let error = Diagnostic::new(format!("the steps form a cycle: `{chain}`"));
                        self.errors.push(error.at(span, "this closes the cycle"));
                        return None;
                    }
                    _ => {}
                }
            }
        }
        Some(order)
    }
}

/// A reference with `x` in place of each `${…}`, so that its name can be parsed.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        out.push('x');
        rest = after.split_once('}').map_or("", |(_, after)| after);
    }
    out.push_str(rest);
    out
}
