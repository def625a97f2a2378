//! `std:evaluate` measures a binary classifier on rows with label and score.
//!
//! ```toml
//! [steps.evaluate]
//! uses = "std:evaluate"
//! input = "predict"
//! params = { label = "churned", threshold = 0.5 }
//! ```
//!
//! Metrics: `auc` (ties count half), `pr_auc` (average precision, ties grouped), `log_loss`
//! (probabilities clamped to 1e-15 from 0 and 1), `accuracy` and `true_positives` … at the
//! threshold, `rows`. The definitions are those of scikit-learn.

use millrace_sdk::keys::{Packed, PackedRef};
use millrace_sdk::prelude::*;
use millrace_sdk::{float_text, kernels};

/// Params of `std:evaluate`.
#[derive(Params)]
pub struct Evaluate {
    /// The column with the true label: 0 or 1, or a boolean.
    label: String,
    /// The column with the score, a probability.
    #[param(default = "probability")]
    score: String,
    /// The score from which on a row counts as positive.
    #[param(default = 0.5, min = 0.0, max = 1.0)]
    threshold: f64,
}

impl Step for Evaluate {
    fn ports() -> Ports {
        Ports::new().mapped("input", "rows with label and score")
    }

    fn plan(&self, plan: &mut Plan) -> Result<()> {
        let label = plan.read("input", &self.label, Kind::Number, "label");
        plan.keep(label);
        let score = plan.read("input", &self.score, Kind::Number, "score");
        plan.keep(score);
        Ok(())
    }
}

fn complete(block: &Part, name: &str) -> Result<Float64Array> {
    let column = block.f64(name)?;
    if column.null_count() == 0 && !kernels::any(column.values(), f64::is_nan) {
        return Ok(column);
    }
    match column.iter().position(|value| value.is_none_or(f64::is_nan)) {
        None => Ok(column),
        Some(row) => {
            let message = format!("column `{name}` has a missing value");
            Err(Error::new(message).in_column(name).at_row(block.row(row)))
        }
    }
}

/// A score and a label in one integer: integers are smaller, and sort faster. The bits of floats
/// from 0 to 1 have the order of the numbers, and leave one bit for the label.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Row(u64);

impl Row {
    fn new(score: f64, label: bool) -> Self {
        // Minus zero becomes zero.
        Self((score + 0.0).to_bits() << 1 | u64::from(label))
    }

    fn score(self) -> f64 {
        f64::from_bits(self.0 >> 1)
    }

    fn label(self) -> bool {
        self.0 & 1 == 1
    }
}

impl Fold for Evaluate {
    /// The sorted rows.
    type Partial = Packed<u64>;

    fn partial(&self, task: &Task) -> Result<Self::Partial> {
        let part = task.part("input")?;
        let wrong = |values: &[f64], is_wrong: fn(f64) -> bool| {
            let row = || values.iter().position(|value| is_wrong(*value));
            if kernels::any(values, is_wrong) { row() } else { None }
        };
        let mut rows = Vec::with_capacity(part.rows());
        for block in part.blocks() {
            let (labels, scores) = (complete(&block, &self.label)?, complete(&block, &self.score)?);
            let (labels, scores) = (labels.values(), scores.values());
            if let Some(row) = wrong(labels, |label| (label != 0.0) & (label != 1.0)) {
                let message = format!("the label is {}, but must be 0 or 1", float_text(labels[row]));
                return Err(Error::new(message).in_column(&self.label).at_row(block.row(row)));
            }
            if let Some(row) = wrong(scores, |score| !(0.0..=1.0).contains(&score)) {
                let message = format!("the score is {}, but a probability is from 0 to 1", float_text(scores[row]));
                return Err(Error::new(message).in_column(&self.score).at_row(block.row(row)));
            }
            rows.extend(scores.iter().zip(labels).map(|(score, label)| Row::new(*score, *label > 0.5).0));
        }
        kernels::sort(&mut rows);
        Ok(Packed(rows))
    }

    fn merge(&self, partials: Partials<Self::Partial>, task: &Task) -> Result<()> {
        let mut rows: Vec<Row> = Vec::new();
        for partial in partials.kept() {
            rows.extend(partial.read::<PackedRef<u64>>()?.iter().map(Row));
        }
        // They consist of sorted runs, which a stable sort merges.
        rows.sort();
        // They are sorted: all rows from an index on count as positive.
        let (below, above) = rows.split_at(rows.partition_point(|row| row.score() < self.threshold));
        let with_label = |rows: &[Row]| rows.iter().map(|row| row.0 & 1).sum::<u64>() as f64;
        let (hits, misses) = (with_label(above), with_label(below));
        let (false_alarms, rejections) = (above.len() as f64 - hits, below.len() as f64 - misses);
        let (positives, negatives) = (hits + misses, false_alarms + rejections);
        if positives == 0.0 || negatives == 0.0 {
            return Err(
                Error::new(format!("{} rows of one class: nothing can be measured", rows.len())).in_column(&self.label)
            );
        }
        let (auc, pr_auc) = areas(&rows, positives, negatives);
        let loss = |row: Row| {
            let clipped = row.score().clamp(1e-15, 1.0 - 1e-15);
            -millrace_sdk::expr_math::ln_normal(if row.label() { clipped } else { 1.0 - clipped })
        };
        task.metric("auc", auc);
        task.metric("pr_auc", pr_auc);
        task.metric("log_loss", kernels::sum_of(&rows, loss) / rows.len() as f64);
        task.metric("accuracy", (hits + rejections) / rows.len() as f64);
        task.metric("true_positives", hits);
        task.metric("false_positives", false_alarms);
        task.metric("true_negatives", rejections);
        task.metric("false_negatives", misses);
        task.metric("rows", rows.len() as f64);
        Ok(())
    }
}

/// Area under the ROC curve and average precision of rows sorted by score.
fn areas(rows: &[Row], positives: f64, negatives: f64) -> (f64, f64) {
    let (mut auc, mut average_precision) = (0.0, 0.0);
    let (mut hits, mut misses) = (0.0, 0.0);
    // From the highest score down, ties together.
    for group in rows.chunk_by(|a, b| a.score() == b.score()).rev() {
        let group_hits = group.iter().filter(|row| row.label()).count() as f64;
        let group_misses = group.len() as f64 - group_hits;
        auc += group_misses * (hits + group_hits / 2.0);
        hits += group_hits;
        misses += group_misses;
        average_precision += group_hits / positives * (hits / (hits + misses));
    }
    (auc / (positives * negatives), average_precision)
}

millrace_sdk::register!(Evaluate: fold);

#[cfg(test)]
mod tests {
    use millrace_sdk::testing::{Harness, table};

    use super::*;

    fn evaluate(parts: &[(&[f64], &[i64])]) -> Result<std::collections::BTreeMap<String, f64>> {
        let part = |(scores, labels): &(&[f64], &[i64])| {
            table(vec![
                ("probability", Arc::new(Float64Array::from(scores.to_vec())) as ArrayRef),
                ("y", Arc::new(Int64Array::from(labels.to_vec()))),
            ])
        };
        let harness =
            Harness::<Evaluate>::new(json!({ "label": "y" })).parts("input", parts.iter().map(part).collect());
        Ok(harness.run()?.metrics)
    }

    /// Reference: scikit-learn 1.5.2 roc_auc_score, average_precision_score, log_loss
    /// and accuracy_score of these eight rows.
    #[test]
    fn metrics_are_those_of_scikit_learn() {
        let scores = [0.1, 0.4, 0.35, 0.8, 0.8, 0.8, 0.5, 0.2];
        let labels = [0, 0, 1, 1, 0, 1, 1, 0];
        let found = evaluate(&[(&scores, &labels)]).unwrap();
        let close =
            |name: &str, expected: f64| assert!((found[name] - expected).abs() < 1e-12, "{name} {}", found[name]);
        close("auc", 0.75);
        close("pr_auc", 0.6875);
        close("accuracy", 0.75);
        close("log_loss", 0.579_753_001_357_396_3);
        close("true_positives", 3.0);
        close("false_positives", 1.0);
        let parts = evaluate(&[(&scores[..3], &labels[..3]), (&scores[3..], &labels[3..])]).unwrap();
        assert_eq!(parts, found);
    }

    /// Rows are counted within the part, in later blocks, too.
    #[test]
    fn an_error_in_a_later_block_has_its_row_in_the_part() {
        let rows = |at: usize, value: f64, rest: f64| (0..40_000).map(move |row| if row == at { value } else { rest });
        let run = |scores: Vec<f64>, labels: Vec<f64>| {
            let part = table(vec![
                ("probability", Arc::new(Float64Array::from(scores)) as ArrayRef),
                ("y", Arc::new(Float64Array::from(labels))),
            ]);
            let error = Harness::<Evaluate>::new(json!({ "label": "y" })).table("input", part).run().unwrap_err();
            (error.column.unwrap_or_default(), error.row)
        };
        let of = |column: &str, row| (column.to_owned(), Some(row));
        assert_eq!(run(vec![0.5; 40_000], rows(39_998, 2.0, 1.0).collect()), of("y", 39_998));
        assert_eq!(run(rows(20_001, 1.5, 0.5).collect(), vec![1.0; 40_000]), of("probability", 20_001));
        assert_eq!(run(rows(33_000, f64::NAN, 0.5).collect(), vec![1.0; 40_000]), of("probability", 33_000));
    }

    /// Minus zero and zero are the same score, and floats of all kinds from 0 to 1 keep their
    /// order.
    #[test]
    fn rows_are_in_the_order_of_scores() {
        let scores = [0.0, f64::from_bits(1), f64::MIN_POSITIVE, 1e-15, 0.5, 1.0 - f64::EPSILON, 1.0];
        let rows: Vec<Row> = scores.iter().flat_map(|p| [Row::new(*p, false), Row::new(*p, true)]).collect();
        assert!(rows.is_sorted());
        assert!(rows.iter().zip(scores.iter().flat_map(|p| [p, p])).all(|(row, p)| row.score() == *p));
        assert!(rows.iter().zip([false, true].iter().cycle()).all(|(row, label)| row.label() == *label));
        let zeros = evaluate(&[(&[-0.0, 0.0, 0.0], &[1, 0, 1])]).unwrap();
        assert_eq!(zeros["auc"], 0.5);
    }

    #[test]
    fn one_class_or_a_missing_value_is_an_error() {
        assert!(evaluate(&[(&[0.5], &[1])]).unwrap_err().message.contains("one class"));
        assert_eq!(evaluate(&[(&[f64::NAN, 0.5], &[1, 0])]).unwrap_err().row, Some(0));
        assert_eq!(evaluate(&[(&[0.5], &[2])]).unwrap_err().message, "the label is 2, but must be 0 or 1");
    }
}
