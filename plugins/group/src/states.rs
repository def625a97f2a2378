//! The state of an aggregate for each group: for the rows of a part, and for the parts so far. It
//! identifies groups by their numbers, and knows nothing about keys.

use std::borrow::Cow;

use millrace_sdk::arrow_buffer::NullBuffer;
use millrace_sdk::grouped;
use millrace_sdk::keys::Packed;
use millrace_sdk::prelude::*;

/// The function that an aggregate applies to the values of a group.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    Count,
    Sum,
    Mean,
    Min,
    Max,
}

/// The state of one aggregate, for each group.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct States {
    /// The number of values, for `count` and `mean`, and for the bounds of integers.
    pub(crate) counts: Packed<u64>,
    /// The sums, for `sum` and `mean`.
    pub(crate) sums: Packed<f64>,
    /// The bounds, for `min` and `max`; NaN for a group without values.
    pub(crate) floats: Packed<f64>,
    /// The bounds of integers.
    pub(crate) ints: Packed<i64>,
}

impl States {
    /// Grows to `groups` groups; the new ones have no values.
    pub(crate) fn resize(&mut self, function: Function, integers: bool, groups: usize) {
        let bound = matches!(function, Function::Min | Function::Max);
        if matches!(function, Function::Count | Function::Mean) || (bound && integers) {
            self.counts.0.resize(groups, 0);
        }
        if matches!(function, Function::Sum | Function::Mean) {
            self.sums.0.resize(groups, 0.0);
        }
        match (bound, integers) {
            (true, true) => self.ints.0.resize(groups, 0),
            (true, false) => self.floats.0.resize(groups, f64::NAN),
            (false, _) => {}
        }
    }

    /// Adds values of these groups.
    fn floats(&mut self, function: Function, groups: &[u32], values: &[f64]) {
        match function {
            Function::Sum | Function::Mean => grouped::add(&mut self.sums.0, groups, values),
            Function::Min => grouped::least(&mut self.floats.0, groups, values),
            Function::Max => grouped::greatest(&mut self.floats.0, groups, values),
            Function::Count => {}
        }
    }

    fn ints(&mut self, function: Function, values: impl Iterator<Item = (usize, i64)>) {
        values.for_each(|(group, x)| {
            let known = &mut self.ints.0[group];
            let is_better = if function == Function::Min { x < *known } else { x > *known };
            if is_better || self.counts.0[group] == 0 {
                *known = x;
            }
            self.counts.0[group] += 1;
        });
    }

    /// Adds the values of a column, whose rows are in these groups. Missing values are skipped.
    pub(crate) fn add(
        &mut self,
        function: Function,
        part: &Part,
        name: &str,
        of_integers: bool,
        of_rows: &[u32],
    ) -> Result<()> {
        let bound = matches!(function, Function::Min | Function::Max);
        // Bounds of a whole part at once: each call starts and ends with a pass over all groups.
        let blocks: Vec<Part> = if bound { vec![part.clone()] } else { part.blocks().collect() };
        let mut rest = of_rows;
        for block in blocks {
            let of_rows;
            (of_rows, rest) = rest.split_at(block.rows());
            if function == Function::Count {
                let column = block.column(name)?;
                grouped::count(&mut self.counts.0, &those(of_rows, &valid(column.nulls())));
            } else if bound && of_integers {
                let column = block.i64(name)?;
                let valid = valid(column.nulls());
                let (groups, values) = (those(of_rows, &valid), those(column.values(), &valid));
                self.ints(function, groups.iter().map(|group| *group as usize).zip(values.iter().copied()));
            } else {
                let column = block.f64(name)?;
                let valid = valid(column.nulls());
                let (groups, values) = (those(of_rows, &valid), those(column.values(), &valid));
                if function == Function::Mean {
                    grouped::count(&mut self.counts.0, &groups);
                }
                self.floats(function, &groups, &values);
            }
        }
        Ok(())
    }

    /// Adds the states of another part, whose groups have these numbers here.
    pub(crate) fn merge(&mut self, function: Function, other: &Self, numbers: &[u32]) {
        let groups = || numbers.iter().map(|number| *number as usize);
        if !other.ints.0.is_empty() {
            let valid = groups().zip(other.ints.0.iter().copied()).zip(&other.counts.0);
            return self.ints(function, valid.filter(|(_, count)| **count > 0).map(|(pair, _)| pair));
        }
        groups().zip(&other.counts.0).for_each(|(group, count)| self.counts.0[group] += count);
        self.floats(function, numbers, &other.sums.0);
        self.floats(function, numbers, &other.floats.0);
    }
}

/// The rows that have a value; `None` if all have one.
fn valid(nulls: Option<&NullBuffer>) -> Option<Vec<usize>> {
    Some(nulls.filter(|nulls| nulls.null_count() > 0)?.valid_indices().collect())
}

/// The items of these rows, or all items.
fn those<'a, T: Copy>(items: &'a [T], rows: &Option<Vec<usize>>) -> Cow<'a, [T]> {
    rows.as_ref().map_or(Cow::Borrowed(items), |rows| rows.iter().map(|row| items[*row]).collect())
}
