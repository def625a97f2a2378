//! Checks what a component claims: its manifest, and its plan of one use.

use millrace_types::{
    ByteSize, ColumnName, DeclaredLimits, Field, Fuel, Manifest, Mode, OutputField, PlanInput, Port, PortKind,
    PortName, Problem, Schema, StepPlan, bounds,
};

use crate::error::ComponentError;
use crate::text::sanitize;
use crate::world::{WitManifest, WitMode, WitPortKind, WitProblem, WitStepPlan};

fn mode(mode: WitMode) -> Mode {
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
    Problem { param, message: sanitize(message, bounds::MESSAGE_BYTES), missing, candidates, span }
}

/// A step in rounds has blobs as outputs.
fn check_rounds(what: &'static str, mode: Mode, outputs: &[Port]) -> Result<(), ComponentError> {
    match outputs.iter().find(|port| port.kind == PortKind::Table) {
        Some(port) if mode == Mode::Rounds => {
            let reason = format!("it works in rounds, which produce blobs, and its output `{}` is a table", port.name);
            Err(ComponentError::Claims { what, reason })
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
    check_rounds("plan", mode, &manifest.outputs)?;
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

/// The manifest of a component, if it is valid.
///
/// # Errors
/// [`ComponentError::Claims`] with what is not.
pub(crate) fn check_manifest(manifest: WitManifest) -> Result<Manifest, ComponentError> {
    let claims = |reason: String| ComponentError::Claims { what: "manifest", reason };
    let kind = |kind| match kind {
        WitPortKind::Table => PortKind::Table,
        WitPortKind::Blob => PortKind::Blob,
    };
    let name = |text: &str| PortName::new(text).map_err(|error| claims(error.to_string()));
    let mut inputs = Vec::new();
    for port in manifest.inputs {
        let name = name(&port.name)?;
        inputs.push(Port {
            name,
            kind: kind(port.kind),
            doc: port.doc,
            optional: port.optional,
            many: port.many,
            mapped: port.mapped,
        });
    }
    let mut outputs = Vec::new();
    for port in manifest.outputs {
        let name = name(&port.name)?;
        outputs.push(Port { name, kind: kind(port.kind), doc: port.doc, optional: false, many: false, mapped: false });
    }
    let mapped: Vec<&Port> = inputs.iter().filter(|port| port.mapped).collect();
    if mapped.len() > 1 || mapped.iter().any(|port| port.many || port.kind == PortKind::Blob) {
        return Err(claims("it has a mapped port that is not a single table".to_owned()));
    }
    let mode = mode(manifest.mode);
    if mapped.is_empty() && mode != Mode::Whole {
        return Err(claims("it works by parts and has no mapped port".to_owned()));
    }
    check_rounds("manifest", mode, &outputs)?;
    for ports in [&inputs, &outputs] {
        if let Some((i, port)) =
            ports.iter().enumerate().find(|(i, port)| ports[..*i].iter().any(|p| p.name == port.name))
        {
            return Err(claims(format!("its port {i} is called `{}` like one before", port.name)));
        }
    }
    if outputs.iter().any(|port| port.name == "metrics") {
        return Err(claims("the output `metrics` is the host's, for the step's named numbers".to_owned()));
    }
    if serde_json::from_str::<serde_json::Value>(&manifest.params_schema).is_err() {
        return Err(claims("its params schema is not JSON".to_owned()));
    }
    Ok(Manifest {
        name: manifest.name,
        version: manifest.version,
        doc: manifest.doc,
        mode,
        inputs,
        outputs,
        params_schema: manifest.params_schema,
        limits: DeclaredLimits {
            memory: manifest.limits.memory_bytes.map(ByteSize),
            fuel: manifest.limits.fuel.map(Fuel),
            time_ms: manifest.limits.time_ms,
        },
    })
}
