//! Components in a folder that serves as a registry.

use crate::sandbox::{Sandbox, components};

const PIPELINE: &str = r#"
[sources.rows]
path = "rows.csv"

[steps.kept]
uses = "std:filter"
input = "rows"
params = { where = "x > 1" }
"#;

/// A sandbox with `std:filter` as version 0.1.0 of `filter` in `steps`.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::with(PIPELINE);
    sandbox.write("rows.csv", "x\n1\n2\n3\n");
    let filter = std::fs::read(components().join("filter.wasm")).expect("a standard step");
    sandbox.write("steps/filter/0.1.0.wasm", filter);
    sandbox
}

fn uses(sandbox: &Sandbox, reference: &str) {
    sandbox.write("pipeline.toml", PIPELINE.replace("std:filter", reference));
}

/// A key has the digest of the component, not where it was found.
#[test]
fn a_component_has_the_same_key_wherever_it_is_found() {
    let sandbox = sandbox();
    let first = sandbox.run(&[]);
    for reference in ["folder:steps/filter@0.1.0", "path:steps/filter/0.1.0.wasm"] {
        uses(&sandbox, reference);
        let run = sandbox.run(&[]);
        assert_eq!((run.ran(), &run.last["outputs"]), (0, &first.last["outputs"]), "{reference}");
    }
}

#[test]
fn another_component_under_the_same_version_runs_again() {
    let sandbox = sandbox();
    uses(&sandbox, "folder:steps/filter@0.1.0");
    assert_eq!(sandbox.run(&[]).ran(), 1);
    assert_eq!(sandbox.run(&[]).ran(), 0);
    let mut filter = std::fs::read(sandbox.path("steps/filter/0.1.0.wasm")).expect("the component");
    // An empty custom section.
    filter.extend(*b"\0\x05\x04note");
    sandbox.write("steps/filter/0.1.0.wasm", filter);
    assert_eq!(sandbox.run(&[]).ran(), 1);
}

#[test]
fn a_reference_without_a_component_says_what_there_is() {
    let sandbox = sandbox();
    std::fs::copy(sandbox.path("steps/filter/0.1.0.wasm"), sandbox.path("steps/filter/0.10.0.wasm")).expect("a copy");
    std::fs::copy(sandbox.path("steps/filter/0.1.0.wasm"), sandbox.path("steps/filter/0.9.0.wasm")).expect("a copy");
    let references = [
        "folder:steps/filter",
        "folder:steps/filter@2.0",
        "folder:steps/other@1.0.0",
        "folder:steps/filter@latest",
        "folder:filter@1.0.0",
        "folder:steps/filter@0.9.0",
        "oci:example.org/filter:1",
        "git:filter",
        "filter",
    ];
    let refused = references.map(|reference| {
        uses(&sandbox, reference);
        sandbox.refused()
    });
    insta::assert_snapshot!(refused.join("\n\n"));
}
