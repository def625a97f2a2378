//! The metrics of a run as tables: a row for each point of a matrix, and the best one marked.

use std::collections::{BTreeMap, BTreeSet};

use millrace_engine::Summary;
use millrace_engine::event::step_of;
use unicode_width::UnicodeWidthStr;

use super::layout::{STATUS, truncated, wrapped};

/// Columns that a label has at most.
const LABEL: usize = 48;
/// Rows of a table that are shown unless all are asked for.
const ROWS: usize = 12;

/// The metrics of the steps that share one matrix.
struct Grid<'a> {
    /// The matrix values as in the labels of instances, `[l2=0.01]`.
    points: BTreeSet<&'a str>,
    /// By metric and step, the values by matrix point.
    columns: BTreeMap<(&'a str, &'a str), BTreeMap<&'a str, f64>>,
}

/// The lines of all metrics, in at most `width` columns.
pub fn lines(summary: &Summary, width: usize, all: bool) -> Vec<String> {
    let mut by_step: BTreeMap<&str, BTreeMap<&str, &BTreeMap<String, f64>>> = BTreeMap::new();
    let mut single = Vec::new();
    for (instance, metrics) in &*summary.metrics {
        let (step, point) = instance.split_at(step_of(instance).len());
        if !point.is_empty() {
            by_step.entry(step).or_default().insert(point, metrics);
        } else if !summary.selected.contains_key(step) {
            single.extend(metrics.iter().map(|(name, value)| format!("{step}.{name} {}", number(*value))));
        }
    }
    let mut grids: BTreeMap<Vec<&str>, Grid<'_>> = BTreeMap::new();
    for (step, instances) in &by_step {
        let points: Vec<&str> = instances.keys().copied().collect();
        let new = || Grid { points: points.iter().copied().collect(), columns: BTreeMap::new() };
        let grid = grids.entry(points.clone()).or_insert_with(new);
        for (point, metrics) in instances {
            for (name, value) in *metrics {
                grid.columns.entry((name, step)).or_default().insert(point, *value);
            }
        }
    }
    let mut lines = wrapped("metrics", single, width.min(100));
    for grid in grids.values() {
        lines.extend(grid.lines(summary, width, all));
    }
    lines
}

/// A column of a table, as text.
struct Column {
    title: String,
    values: Vec<String>,
    width: usize,
}

impl<'a> Grid<'a> {
    fn lines(&self, summary: &Summary, width: usize, all: bool) -> Vec<String> {
        let selectors = |point: &str| {
            let by = summary.selected.iter().filter(|(_, selected)| *selected == point);
            by.map(|(step, _)| step.as_str()).collect::<Vec<_>>().join(", ")
        };
        let (points, left_out) = self.shown_points(summary, all);
        let labels: Vec<String> = points.iter().map(|point| label(point)).collect();
        let notes: Vec<String> = points
            .iter()
            .map(|point| selectors(point))
            .map(|by| if by.is_empty() { by } else { format!("  ← {by}") })
            .collect();
        let label_width = labels.iter().map(|label| label.width()).max().unwrap_or(0);
        let note_width = notes.iter().map(|note| note.width()).max().unwrap_or(0);
        let mut room = width.min(120).saturating_sub(STATUS + 2 + label_width + note_width);
        let mut shown = Vec::new();
        let mut hidden = Vec::new();
        for column in self.columns(summary, &points) {
            if shown.is_empty() || column.width + 2 <= room && hidden.is_empty() {
                room = room.saturating_sub(column.width + 2);
                shown.push(column);
            } else {
                hidden.push(column.title);
            }
        }
        let row = |first: &str, label: &str, cells: &mut dyn Iterator<Item = &str>, note: &str| {
            let mut line = format!("{first:>STATUS$}  {label}{}", " ".repeat(label_width - label.width()));
            for (cell, column) in cells.zip(&shown) {
                line.push_str("  ");
                line.push_str(&" ".repeat(column.width.saturating_sub(cell.width())));
                line.push_str(cell);
            }
            line.push_str(note);
            truncated(line.trim_end(), width)
        };
        let mut lines = vec![row("metrics", "", &mut shown.iter().map(|column| column.title.as_str()), "")];
        for (index, (label, note)) in labels.iter().zip(&notes).enumerate() {
            lines.push(row("", label, &mut shown.iter().map(|column| column.values[index].as_str()), note));
        }
        if left_out > 0 {
            lines.push(truncated(&format!("{:>STATUS$}  … and {left_out} more, all with -v or --json", ""), width));
        }
        if !hidden.is_empty() {
            let more = format!("{:>STATUS$}  not shown: {} (--json has all)", "", hidden.join(", "));
            lines.push(truncated(&more, width.min(120)));
        }
        lines
    }

    /// The points in their order, with those that were selected, and how many are left out.
    fn shown_points(&self, summary: &Summary, all: bool) -> (Vec<&'a str>, usize) {
        if all || self.points.len() <= ROWS {
            return (self.points.iter().copied().collect(), 0);
        }
        let is_selected = |point: &&str| summary.selected.values().any(|selected| selected == point);
        let mut shown: Vec<&str> = self.points.iter().copied().filter(is_selected).take(ROWS).collect();
        let others = self.points.iter().copied().filter(|point| !is_selected(point));
        shown.extend(others.take(ROWS - shown.len()));
        shown.sort_unstable();
        let left_out = self.points.len() - shown.len();
        (shown, left_out)
    }

    /// The columns as text, the most telling first: the metric by which a step has selected, then
    /// those that differ between the points, and of these counts last.
    fn columns(&self, summary: &Summary, points: &[&str]) -> Vec<Column> {
        let selecting: BTreeSet<&str> = summary
            .selected
            .iter()
            .filter(|(_, point)| self.points.contains(point.as_str()))
            .filter_map(|(step, _)| summary.metrics.get(step))
            .flat_map(|metrics| metrics.keys().map(String::as_str))
            .collect();
        let mut keys: Vec<&(&str, &str)> = self.columns.keys().collect();
        let is_constant = |key: &(&str, &str)| {
            let mut values = self.columns[key].values();
            let first = values.next();
            values.all(|value| Some(value) == first)
        };
        let is_count = |key: &(&str, &str)| self.columns[key].values().all(|value| value.fract() == 0.0);
        keys.sort_by_key(|key| (!selecting.contains(key.0), is_constant(key), is_count(key), key.0, key.1));
        let column = |key: &&(&str, &str)| {
            let (name, step) = **key;
            let is_shared = self.columns.keys().filter(|(other, _)| *other == name).count() > 1;
            let title = if is_shared { format!("{step}.{name}") } else { name.to_owned() };
            let value = |point: &&str| self.columns[*key].get(point).map_or("·".to_owned(), |value| number(*value));
            let values: Vec<String> = points.iter().map(value).collect();
            let width = values.iter().map(|value| value.width()).chain([title.width()]).max().unwrap_or(0);
            Column { title, values, width }
        };
        keys.iter().map(column).collect()
    }
}

/// Matrix values without the brackets: `l2=0.01,epochs=5` of `[l2=0.01,epochs=5]`.
fn label(point: &str) -> String {
    let inner = point.strip_prefix('[').and_then(|point| point.strip_suffix(']'));
    truncated(inner.unwrap_or(point), LABEL)
}

/// A metric: an integer as one, else with six significant digits.
pub fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        return format!("{value:.0}");
    }
    if !value.is_finite() || value.abs() >= 1e15 || value.abs() < 1e-4 {
        return format!("{value:.5e}");
    }
    let digits = 6 - (value.abs().log10().floor() as i32).clamp(-6, 5) - 1;
    format!("{value:.*}", usize::try_from(digits.max(0)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn summary() -> Summary {
        let metrics = |values: &[(&str, f64)]| -> BTreeMap<String, f64> {
            values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
        };
        let all = [
            ("best", metrics(&[("auc", 0.838_042)])),
            ("clean", metrics(&[("values_filled", 11.0)])),
            ("evaluate[l2=0.0]", metrics(&[("accuracy", 0.797_019), ("auc", 0.836_559), ("rows", 1409.0)])),
            ("evaluate[l2=0.01]", metrics(&[("accuracy", 0.793_471), ("auc", 0.838_042), ("rows", 1409.0)])),
            ("train[l2=0.0]", metrics(&[("epochs", 500.0)])),
            ("train[l2=0.01]", metrics(&[("epochs", 198.0)])),
        ];
        let selected = BTreeMap::from([("best".to_owned(), "[l2=0.01]".to_owned())]);
        Summary {
            metrics: Arc::new(all.into_iter().map(|(name, metrics)| (name.to_owned(), metrics)).collect()),
            selected: Arc::new(selected),
            ..Summary::default()
        }
    }

    #[test]
    fn matrix_points_are_rows_and_the_selected_one_is_marked() {
        insta::assert_snapshot!(lines(&summary(), 100, false).join("\n"));
    }

    #[test]
    fn narrow_tables_name_the_metrics_that_they_leave_out() {
        let lines = lines(&summary(), 48, false);
        assert!(lines.iter().all(|line| line.width() <= 48), "{lines:#?}");
        assert!(lines.iter().any(|line| line.contains("not shown: ")), "{lines:#?}");
    }

    #[test]
    fn numbers_have_six_significant_digits() {
        let cases = [(1409.0, "1409"), (0.838_042_4, "0.838042"), (1.5e-9, "1.50000e-9"), (123_456.78, "123457")];
        cases.into_iter().for_each(|(value, text)| assert_eq!(number(value), text));
        assert_eq!(number(f64::NAN), "NaN");
    }
}
