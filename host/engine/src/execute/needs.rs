//! Which columns of its sources a run needs: those that a step reads or a file is written
//! of, followed back through the steps that only pass them through.
//!
//! It follows from the plans, so from the pipeline and the schemas. Where only the run knows
//! what a step passes through, everything is needed.

use millrace_types::PortName;
use millrace_wasm::{PortKind, StepPlan};

use super::run::Run;
use crate::graph::Item;
use crate::source::Need;

/// What is needed of tables, as far as those behind them were looked at.
struct Needs {
    sources: Vec<Need>,
    /// By node: of its outputs.
    nodes: Vec<Vec<(PortName, Need)>>,
}

impl Needs {
    fn add(&mut self, item: &Item, need: &Need) {
        match item {
            Item::Source(source) => self.sources[*source].add(need),
            Item::Output { node, port } => self.add_output(*node, port, need),
            Item::Chosen { candidates, port, .. } => {
                candidates.iter().for_each(|node| self.add_output(*node, port, need));
            }
        }
    }

    fn add_output(&mut self, node: usize, port: &PortName, need: &Need) {
        let outputs = &mut self.nodes[node];
        match outputs.iter_mut().find(|(name, _)| name == port) {
            Some((_, known)) => known.add(need),
            None => outputs.push((port.clone(), need.clone())),
        }
    }
}

impl Run<'_> {
    /// What is needed of each source, when everything is planned that can be.
    pub(super) fn needs(&self) -> Vec<Need> {
        let sources = vec![Need::nothing(); self.sources.len()];
        let mut needs = Needs { sources, nodes: vec![Vec::new(); self.nodes.len()] };
        for export in &self.graph.exports {
            needs.add(&export.item, &Need::All);
        }
        // Whoever reads of a node comes behind it.
        for (index, node) in self.graph.nodes.iter().enumerate().rev() {
            for input in node.inputs.iter().filter(|input| input.port.kind == PortKind::Table) {
                let need = match &self.nodes[index].plan {
                    None => Need::All,
                    Some(plan) => of_port(plan, &input.port.name, &needs.nodes[index]),
                };
                for (_, item) in &input.items {
                    needs.add(item, &need);
                }
            }
        }
        needs.sources
    }
}

/// What a step needs of a port: what it reads, and what is wanted of what it passes through.
fn of_port(plan: &StepPlan, port: &PortName, wanted: &[(PortName, Need)]) -> Need {
    let reads = plan.reads.iter().find(|(name, _)| name == port).map_or(&[][..], |(_, columns)| columns);
    let mut need = Need::of(reads);
    for (output, wanted) in wanted.iter().filter(|(_, wanted)| !wanted.is_nothing()) {
        let Some((_, fields)) = plan.outputs.iter().find(|(name, _)| name == output) else { continue };
        let Some(fields) = fields else { return Need::All };
        let passed = fields.iter().filter(|output| wanted.has(&output.field.name)).filter_map(|o| o.source.as_ref());
        for (_, column) in passed.filter(|(from, _)| from == port) {
            need.add(&Need::of(std::slice::from_ref(column)));
        }
    }
    need
}
