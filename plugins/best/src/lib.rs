//! `std:best` chooses the best of several instances by one of their metrics.
//!
//! ```toml
//! [steps.best]
//! uses = "std:best"
//! inputs = { candidates = "evaluate.metrics[*]" }
//! params = { by = "auc" }
//! ```
//!
//! The blob `choice` is JSON: `{"instance":{"l2":0.01},"by":"auc","value":0.84}`.
//! `train.model[best]`, as an input or an export, is then the model of that
//! instance.

use millrace_sdk::prelude::*;

/// The extreme that is best.
#[derive(Clone, Copy, PartialEq, Eq, Choice)]
pub enum Order {
    /// The largest value.
    Max,
    /// The smallest value.
    Min,
}

/// Params of `std:best`.
#[derive(Params)]
pub struct Best {
    /// Name of the metric.
    by: String,
    /// Whether the largest (`max`) or the smallest (`min`) value is best. The default is the
    /// smallest for what is called a loss or an error (`log_loss`, `rmse`), else the largest.
    order: Option<Order>,
}

impl Best {
    fn order(&self) -> Order {
        let small = ["loss", "error", "mse", "mae", "mape"].iter().any(|end| self.by.ends_with(end));
        self.order.unwrap_or(if small { Order::Min } else { Order::Max })
    }
}

impl Step for Best {
    fn ports() -> Ports {
        Ports::new().many_blobs("candidates", "the metrics of the instances").blob("choice", "the best instance")
    }

    fn plan(&self, _: &mut Plan) -> Result<()> {
        Ok(())
    }
}

impl Whole for Best {
    fn whole(&self, task: &Task) -> Result<()> {
        let mut best: Option<(f64, Value)> = None;
        for (instance, bytes) in task.blobs("candidates")? {
            let metrics: Value = millrace_sdk::json::from_str(&String::from_utf8_lossy(&bytes))?;
            let Some(value) = metrics[&self.by].as_f64() else {
                let names: Vec<String> =
                    metrics.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect();
                return Err(Error::new(format!(
                    "instance {instance} has no metric `{}`, only {}",
                    self.by,
                    names.join(", ")
                )));
            };
            // The first of equal values wins.
            let better = best.as_ref().is_none_or(|(known, _)| match self.order() {
                Order::Max => value > *known,
                Order::Min => value < *known,
            });
            if better {
                best = Some((value, instance));
            }
        }
        let (value, instance) = best.ok_or_else(|| Error::new("there is no instance to choose from"))?;
        task.log(Level::Info, &format!("best by {}: {instance} with {value}", self.by));
        task.metric(&self.by, value);
        task.emit_blob("choice", json!({ "by": self.by, "instance": instance, "value": value }).to_string().as_bytes())
    }
}

millrace_sdk::register!(Best: whole);

#[cfg(test)]
mod tests {
    use millrace_sdk::testing::Harness;

    use super::*;

    fn best(params: Value) -> Result<Value> {
        let blob = |l2: f64, metrics: Value| (json!({ "l2": l2 }), metrics.to_string().into_bytes());
        let blobs =
            vec![blob(0.0, json!({ "auc": 0.8 })), blob(0.1, json!({ "auc": 0.9 })), blob(0.2, json!({ "auc": 0.9 }))];
        let out = Harness::<Best>::new(params).blobs("candidates", blobs).run()?;
        Ok(millrace_sdk::json::from_slice(out.blob("choice")).unwrap())
    }

    #[test]
    fn the_best_is_chosen_and_the_first_wins_ties() {
        assert_eq!(best(json!({ "by": "auc" })).unwrap()["instance"], json!({ "l2": 0.1 }));
        assert_eq!(best(json!({ "by": "auc", "order": "min" })).unwrap()["value"], 0.8);
        let order = |by: &str| Best { by: by.to_owned(), order: None }.order() == Order::Min;
        assert_eq!(["log_loss", "rmse", "auc"].map(order), [true, true, false]);
        assert!(best(json!({ "by": "f1" })).unwrap_err().message.ends_with("has no metric `f1`, only auc"));
    }
}
