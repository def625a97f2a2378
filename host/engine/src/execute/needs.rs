//! The columns of its sources that a run needs: those that a step reads or an export has, traced
//! back through the steps that pass them through.
//!
//! They follow from the plans, so from the pipeline and the schemas. Where only the run knows what
//! a step passes through, all columns are needed.

use millrace_types::{PortKind, PortName, StepPlan};

use crate::graph::{Graph, Item};
use crate::source::Need;

/// The columns needed of tables, by the nodes that were visited so far.
struct Needs {
    sources: Vec<Need>,
    /// By node: the columns needed of its outputs.
    nodes: Vec<Vec<(PortName, Need)>>,
}

impl Needs {
    fn add(&mut self, item: &Item, need: &Need) {
        match item {
            Item::Source(source) => self.sources[*source].add(need),
            Item::Output { node, port } => self.add_output(*node, port, need),
            Item::Selected { candidates, port, .. } => {
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

/// The columns needed of each source, by the known plans.
pub(super) fn needs<'p>(graph: &Graph, sources: usize, plan_of: &dyn Fn(usize) -> Option<&'p StepPlan>) -> Vec<Need> {
    let mut needs = Needs { sources: vec![Need::nothing(); sources], nodes: vec![Vec::new(); graph.nodes.len()] };
    for export in &graph.exports {
        needs.add(&export.item, &Need::All);
    }
    // Nodes come after those that they read, so in reverse each is visited after its readers.
    for (index, node) in graph.nodes.iter().enumerate().rev() {
        for input in node.inputs.iter().filter(|input| input.port.kind == PortKind::Table) {
            let need = match plan_of(index) {
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

/// The columns that a step needs of a port: those it reads, and those needed of what it passes
/// through.
fn of_port(plan: &StepPlan, port: &PortName, needed: &[(PortName, Need)]) -> Need {
    let reads = plan.reads.iter().find(|(name, _)| name == port).map_or(&[][..], |(_, columns)| columns);
    let mut need = Need::of(reads);
    for (output, needed) in needed.iter().filter(|(_, needed)| !needed.is_nothing()) {
        let Some((_, fields)) = plan.outputs.iter().find(|(name, _)| name == output) else { continue };
        let Some(fields) = fields else { return Need::All };
        let passed = fields.iter().filter(|output| needed.has(&output.field.name)).filter_map(|o| o.source.as_ref());
        for (_, column) in passed.filter(|(from, _)| from == port) {
            need.add(&Need::of(std::slice::from_ref(column)));
        }
    }
    need
}
