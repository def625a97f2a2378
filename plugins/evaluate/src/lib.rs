//! `std:evaluate` measures a binary classifier on rows with label and score.
//!
//! ```toml
//! [steps.evaluate]
//! uses = "std:evaluate"
//! input = "predict"
//! params = { label = "churned", threshold = 0.5 }
//! ```
//!
//! Metrics: `auc` (ties count half), `pr_auc` (average precision, ties grouped),
//! `log_loss` (probabilities kept within 1e-15 of 0 and 1), `accuracy` and
//! `true_positives` … at the threshold, `rows`. The definitions are those of
//! scikit-learn.

use millrace_sdk::float_text;
use millrace_sdk::prelude::*;

/// Params of `std:evaluate`.
#[derive(Params)]
pub struct Evaluate {
    /// The column with the truth: 0 or 1, or a boolean.
    label: String,
    /// The column with the score, a probability.
    #[param(default = "probability")]
    score: String,
    /// From which score on a row counts as positive.
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

fn complete(part: &Part, name: &str) -> Result<Vec<f64>> {
    let column = part.f64(name)?;
    match column.iter().position(|value| value.is_none_or(f64::is_nan)) {
        None => Ok(column.values().to_vec()),
        Some(row) => Err(Error::new(format!("column `{name}` has a missing value")).in_column(name).at_row(row)),
    }
}

impl Fold for Evaluate {
    type Partial = Vec<(f64, bool)>;

    fn partial(&self, task: &Task) -> Result<Self::Partial> {
        let part = task.part("input")?;
        let (labels, scores) = (complete(&part, &self.label)?, complete(&part, &self.score)?);
        if let Some(row) = labels.iter().position(|label| *label != 0.0 && *label != 1.0) {
            let message = format!("the label is {}, and must be 0 or 1", float_text(labels[row]));
            return Err(Error::new(message).in_column(&self.label).at_row(row));
        }
        if let Some(row) = scores.iter().position(|score| !(0.0..=1.0).contains(score)) {
            let message = format!("the score is {}, and a probability is from 0 to 1", float_text(scores[row]));
            return Err(Error::new(message).in_column(&self.score).at_row(row));
        }
        let mut rows: Vec<(f64, bool)> = scores.into_iter().zip(labels.into_iter().map(|label| label > 0.5)).collect();
        rows.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        Ok(rows)
    }

    fn merge(&self, partials: Partials<Self::Partial>, task: &Task) -> Result<()> {
        let mut rows: Self::Partial = Vec::new();
        for partial in partials.iter() {
            rows.extend(partial?);
        }
        // Made of sorted runs, which a stable sort merges.
        rows.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let positives = rows.iter().filter(|(_, label)| *label).count() as f64;
        let negatives = rows.len() as f64 - positives;
        if positives == 0.0 || negatives == 0.0 {
            return Err(
                Error::new(format!("{} rows of one class: nothing can be measured", rows.len())).in_column(&self.label)
            );
        }
        let (auc, pr_auc) = areas(&rows, positives, negatives);
        let clipped = |p: f64| p.clamp(1e-15, 1.0 - 1e-15);
        let losses: Vec<f64> = rows
            .iter()
            .map(|(p, label)| -millrace_sdk::expr_math::ln(if *label { clipped(*p) } else { 1.0 - clipped(*p) }))
            .collect();
        let count = |positive: bool, label: bool| {
            rows.iter().filter(|(p, truth)| (*p >= self.threshold) == positive && *truth == label).count() as f64
        };
        let (true_positives, true_negatives) = (count(true, true), count(false, false));
        task.metric("auc", auc);
        task.metric("pr_auc", pr_auc);
        task.metric("log_loss", millrace_sdk::kernels::sum(&losses) / rows.len() as f64);
        task.metric("accuracy", (true_positives + true_negatives) / rows.len() as f64);
        task.metric("true_positives", true_positives);
        task.metric("false_positives", count(true, false));
        task.metric("true_negatives", true_negatives);
        task.metric("false_negatives", count(false, true));
        task.metric("rows", rows.len() as f64);
        Ok(())
    }
}

/// Area under the ROC curve and average precision of rows sorted by score.
fn areas(rows: &[(f64, bool)], positives: f64, negatives: f64) -> (f64, f64) {
    let (mut auc, mut average_precision) = (0.0, 0.0);
    let (mut hits, mut misses) = (0.0, 0.0);
    // From the highest score down, ties together.
    for group in rows.chunk_by(|a, b| a.0 == b.0).rev() {
        let group_hits = group.iter().filter(|(_, label)| *label).count() as f64;
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

    #[test]
    fn one_class_or_a_gap_is_an_error() {
        assert!(evaluate(&[(&[0.5], &[1])]).unwrap_err().message.contains("one class"));
        assert_eq!(evaluate(&[(&[f64::NAN, 0.5], &[1, 0])]).unwrap_err().row, Some(0));
        assert_eq!(evaluate(&[(&[0.5], &[2])]).unwrap_err().message, "the label is 2, and must be 0 or 1");
    }
}
