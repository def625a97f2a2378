//! `examples/features-3m` on a generated table of 1/1000 of the size: the steps for features,
//! together. `benches/peers/parity.py` compares all of it with the reference.

use std::fmt::Write as _;

use crate::sandbox::{Run, Sandbox, repository};

const ROWS: u64 = 3000;

/// Numbers below 1, spread evenly: the fractions of multiples of the golden ratio.
fn spread(row: u64, column: u64) -> f64 {
    ((row * (2 * column + 3) + column * 7919) as f64 * 0.618_033_988_749_894_9).fract()
}

fn events() -> String {
    let mut text = String::from("row_id,user_id,ts,price,qty,category,country,device,session_len,discount");
    (0..12).for_each(|n| write!(text, ",n{n:02}").unwrap());
    text.push_str(",label\n");
    for row in 0..ROWS {
        let u = |column| spread(row, column);
        let ts = 1_735_689_599 - (u(1) * 33.0 * 86_400.0) as i64;
        let price = (u(2) * 100.0).floor() / 4.0 - 1.0;
        write!(text, "{row},{},{ts},{price},{}", (u(3) * 200.0) as i64, 1 + (u(4) * 9.0) as i64).unwrap();
        let (category, country) = ((u(5) * 50.0) as i64, (u(6) * 30.0) as i64);
        let device = ["desktop", "mobile", "other", "tablet", "tv"][(u(7) * 5.0) as usize];
        write!(text, ",cat_{category:02},C{country:02},{device},{},{}", u(8) * 600.0, u(9) * 0.5).unwrap();
        (0..12).for_each(|n| write!(text, ",{}", u(10 + n) * 4.0).unwrap());
        writeln!(text, ",{}", i64::from(u(17) + u(18) > 1.0)).unwrap();
    }
    text
}

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    for name in ["pipeline.toml", "features.toml"] {
        sandbox.write(name, std::fs::read(repository().join("examples/features-3m").join(name)).unwrap());
    }
    sandbox.write("events.csv", events());
    sandbox
}

fn metric(run: &Run, step: &str, name: &str) -> f64 {
    run.last["metrics"][step][name].as_f64().unwrap_or_else(|| panic!("{step} has no {name}: {}", run.last))
}

#[test]
fn the_feature_workload_runs_and_each_change_runs_only_its_tasks() {
    let sandbox = sandbox();
    let data = ["--set", "data=events.csv"];
    let run = sandbox.run(&data);
    // Counted here, not by the steps.
    let events = events();
    let kept = events.lines().skip(1).filter(|line| {
        let fields: Vec<&str> = line.split(',').collect();
        fields[2].parse::<i64>().unwrap() >= 1_733_097_600 && fields[3].parse::<f64>().unwrap() > 0.0
    });
    let kept = kept.count() as f64;
    assert_eq!(metric(&run, "kept", "rows_out"), kept);
    assert_eq!(metric(&run, "features", "rows_with_partner"), kept);
    assert_eq!(metric(&run, "split", "train_rows") + metric(&run, "split", "test_rows"), kept);
    assert!(metric(&run, "users", "groups") <= 200.0);
    assert!(metric(&run, "evaluate", "auc") > 0.5);

    assert_eq!(sandbox.run(&data).ran(), 0);
    let rate = sandbox.run(&[&data[..], &["--set", "learning_rate=0.4"]].concat());
    assert_eq!(rate.steps_that_ran()[..], ["evaluate", "predict", "train"]);
    let seed = sandbox.run(&[&data[..], &["--set", "seed=43"]].concat());
    // `split` and `sides` read the same two columns: one runs, the other uses its record.
    let ran = seed.steps_that_ran();
    assert_eq!(ran.iter().filter(|step| !["sides", "split"].contains(&step.as_str())).count(), 3, "{ran:?}");
    assert_eq!(ran.len(), 4, "{ran:?}");
}

#[test]
fn the_feature_workload_is_the_same_with_one_job_and_two() {
    let outputs = |jobs: &str| {
        let run = sandbox().run(&["--set", "data=events.csv", "--jobs", jobs]);
        run.last["outputs"].clone()
    };
    let one = outputs("1");
    assert!(one.as_object().is_some_and(|outputs| outputs.len() > 10), "{one}");
    assert_eq!(one, outputs("2"));
}
