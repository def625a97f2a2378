//! The churn example, compared with scikit-learn.

use crate::sandbox::{Sandbox, repository};

/// Test AUC of scikit-learn's LogisticRegression on the same features and the same split, hardly
/// penalised (C = 1e6), by `examples/churn/reference.py`: its head explains how. It trains on all
/// training rows; Millrace holds out a tenth of them.
const REFERENCE_AUC: f64 = 0.838_126_792;

#[test]
fn the_best_model_is_as_good_as_that_of_scikit_learn() {
    let sandbox = Sandbox::new();
    for name in ["pipeline.toml", "telco_churn.csv"] {
        sandbox.write(name, std::fs::read(repository().join("examples/churn").join(name)).unwrap());
    }
    let run = sandbox.run(&[]);
    let auc = run.last["metrics"]["best"]["auc"].as_f64().unwrap();
    assert!((auc - REFERENCE_AUC).abs() < 0.005, "{auc} against {REFERENCE_AUC}");
    assert_eq!(run.last["metrics"]["split"]["test_rows"], 1409.0);

    let choice: serde_json::Value = serde_json::from_str(&sandbox.read("out/choice.json")).unwrap();
    let best = run.last["metrics"].as_object().unwrap().iter().filter(|(step, _)| step.starts_with("evaluate"));
    let best = best.map(|(_, metrics)| metrics["auc"].as_f64().unwrap()).fold(0.0, f64::max);
    assert_eq!(choice["value"].as_f64().unwrap(), best);
    let model: serde_json::Value = serde_json::from_str(&sandbox.read("out/model.json")).unwrap();
    assert_eq!(model["kind"], "logistic");

    assert_eq!(sandbox.run(&[]).ran(), 0);
    let other = sandbox.run(&["--set", "epochs=400"]);
    // `answer` only selects columns: it reads none, so other values do not change its key.
    assert_eq!(other.steps_that_ran()[..], ["best", "evaluate", "predict", "train"]);
}
