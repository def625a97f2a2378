//! What a component claims of itself and of a use, held against what is possible.

use millrace_types::{ColumnName, Field, PortName, Schema, bounds};

use crate::component::{ComponentError, Manifest, Mode, PlanInput, Port, PortKind, Problem, StepPlan};
use crate::output::OutputField;
use crate::task::cut;
use crate::world::{WitMode, WitProblem, WitStepPlan};

pub(crate) fn mode(mode: WitMode) -> Mode {
    match mode {
        WitMode::Map => Mode::Map,
        WitMode::Fold => Mode::Fold,
        WitMode::Whole => Mode::Whole,
        WitMode::Rounds => Mode::Rounds,
    }
}

pub(crate) fn problem(problem: WitProblem) -> Problem {
    let WitProblem { param, message, missing, mut candidates, span } = problem;
    candidates.truncate(bounds::PROBLEMS);
    Problem { param, message: cut(message, bounds::MESSAGE_BYTES), missing, candidates, span }
}

pub(crate) fn check_rounds(mode: Mode, outputs: &[Port]) -> Result<(), String> {
    match outputs.iter().find(|port| port.kind == PortKind::Table) {
        Some(port) if mode == Mode::Rounds => {
            Err(format!("it works in rounds, where blobs come out, and its output `{}` is a table", port.name))
        }
        _ => Ok(()),
    }
}

pub(crate) fn check_plan(
    manifest: &Manifest,
    inputs: &[PlanInput],
    plan: WitStepPlan,
) -> Result<StepPlan, ComponentError> {
    let claims = |reason: String| ComponentError::Claims { what: "plan", reason };
    let schema = |port: &str| inputs.iter().find(|input| input.port == *port).and_then(|input| input.schema.as_ref());
    let mode = plan.mode.map_or(manifest.mode, mode);
    if mode != Mode::Whole && !manifest.inputs.iter().any(|port| port.mapped) {
        return Err(claims("it works by parts and has no mapped port".to_owned()));
    }
    check_rounds(mode, &manifest.outputs).map_err(claims)?;
    let mut reads = Vec::new();
    for read in plan.reads {
        let Some((schema, input)) = schema(&read.port).zip(inputs.iter().find(|input| input.port == *read.port)) else {
            return Err(claims(format!("it reads from `{}`, where there is no table", read.port)));
        };
        if let Some(unknown) = read.columns.iter().find(|column| schema.find(column).is_none()) {
            return Err(claims(format!("it reads the column `{unknown}`, which `{}` does not have", read.port)));
        }
        // In the order of the schema, whatever the order in which it asked.
        let wanted = |name: &&ColumnName| read.columns.iter().any(|column| *name == column.as_str());
        let columns: Vec<ColumnName> = schema.fields.iter().map(|field| &field.name).filter(wanted).cloned().collect();
        if reads.iter().any(|(port, _)| *port == input.port) {
            return Err(claims(format!("it names the reads of `{}` twice", read.port)));
        }
        reads.push((input.port.clone(), columns));
    }
    let mut outputs = Vec::new();
    for port in manifest.outputs.iter().filter(|port| port.kind == PortKind::Table) {
        let Some(output) = plan.outputs.iter().find(|output| port.name == *output.port) else {
            return Err(claims(format!("it says nothing of its output `{}`", port.name)));
        };
        let Some(fields) = &output.fields else {
            outputs.push((port.name.clone(), None));
            continue;
        };
        let mut out = Vec::with_capacity(fields.len());
        for output in fields {
            let field = Field::from(output.field.clone());
            let source = match &output.source {
                None => None,
                Some(source) => {
                    let found = schema(&source.port).and_then(|schema| schema.find(&source.column));
                    let Some((_, found)) = found else {
                        let (port, column) = (&source.port, &source.column);
                        return Err(claims(format!("it passes `{column}` of `{port}` through, which is not there")));
                    };
                    if found.data_type != field.data_type || (found.nullable && !field.nullable) {
                        return Err(claims(format!("it passes `{}` through with another type", field.name)));
                    }
                    let port = PortName::new(&source.port).map_err(|error| claims(error.to_string()))?;
                    Some((port, ColumnName::new(&source.column)))
                }
            };
            out.push(OutputField { field, source });
        }
        let schema = Schema { fields: out.iter().map(|output| output.field.clone()).collect() };
        if let Some(twice) = schema.duplicate() {
            return Err(claims(format!("`{}` would have two columns `{twice}`", port.name)));
        }
        outputs.push((port.name.clone(), Some(out)));
    }
    Ok(StepPlan { mode, reads, outputs })
}
