//! The same pipeline gives the same bytes, whatever the number of threads.

use std::path::Path;

use crate::sandbox::{Sandbox, repository};

#[test]
fn every_artifact_of_churn_is_the_same_with_one_job_and_with_two() {
    let mut seen = Vec::new();
    for jobs in ["1", "2", "1", "2"] {
        let sandbox = Sandbox::new();
        for name in ["pipeline.toml", "telco_churn.csv"] {
            let bytes = std::fs::read(repository().join("examples/churn").join(name)).unwrap();
            sandbox.write(name, bytes);
        }
        let run = sandbox.run(&["--jobs", jobs]);
        assert_eq!(run.cached(), 0);
        let file = |name: &str| std::fs::read(sandbox.path(Path::new("out").join(name).to_str().unwrap())).unwrap();
        let fuel = run.last["fuel"].clone();
        seen.push((run.last["outputs"].clone(), fuel, file("predictions.parquet"), file("model.json")));
    }
    assert!(seen.iter().all(|other| *other == seen[0]), "a run differs from the first");
}
