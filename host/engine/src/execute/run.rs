//! One run: the states of all nodes, and what to do when something happens.
//!
//! Long because it is one state machine: every method changes the states of nodes, and none
//! of them is of use to anybody else.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::Sender;

use millrace_types::action_record::{ObjectRef, OutputRecord};
use millrace_types::{
    ActionKey, ActionRecord, BlobRef, ByteSize, CanonicalJson, Cost, KeyParts, LogLine, Phase, PortName, Table,
};
use millrace_wasm::{Failure, Mode as StepMode, PortKind, TaskSpec};
use serde_json::Value;

use super::key::{self, Seen, SeenPort};
use super::say::near_limits;
use super::screen::Emit;
use super::state::{NodeState, OutputState, Parts, Progress, TableState, TableView};
use super::worker::{Job, Outcome, lookup, now};
use super::{Loaded, Mode, Options};
use crate::assemble::{self, InputTable};
use crate::event::{Event, Status, Summary};
use crate::graph::{Graph, Item};
use crate::history::{RunRecord, TaskRecord};
use crate::pipeline::CachePolicy;
use crate::why::{MissReason, differences};

/// A task that was made.
pub(super) struct Task {
    node: usize,
    part: Option<usize>,
    phase: Phase,
    key: ActionKey,
    parts: Option<KeyParts>,
    spec: Option<TaskSpec>,
    /// The tables that its outputs are put together from.
    tables: Vec<(PortName, millrace_types::Schema, Vec<Arc<millrace_types::Part>>)>,
}

pub(super) struct Run<'a> {
    pub(super) options: &'a Options,
    pub(super) loaded: &'a Loaded,
    pub(super) graph: &'a Graph,
    /// Those that are known: all of them, once anything runs.
    pub(super) sources: Vec<Option<Arc<Table>>>,
    last: Option<RunRecord>,
    pub(super) emit: Emit<'a>,
    pub(super) nodes: Vec<NodeState>,
    /// Nodes that wait for something of a node.
    behind: Vec<Vec<usize>>,
    /// Nodes whose blob says which instance others take: it is read here.
    pub(super) choosers: BTreeSet<usize>,
    work: VecDeque<usize>,
    pub(super) tasks: Vec<Task>,
    /// Tasks to compute, the most urgent last.
    ready: BTreeSet<(Urgency, usize)>,
    /// Tasks of one key: the first runs, the others take its record.
    in_flight: HashMap<ActionKey, Vec<usize>>,
    running: usize,
    memory: u64,
    stopping: bool,
    pub(super) summary: Summary,
    pub(super) history: Vec<(usize, TaskRecord, Vec<LogLine>)>,
    /// All that the records name that were used.
    pub(super) objects: Vec<ObjectRef>,
}

/// What goes first, the greater the sooner: tasks of all parts, which others wait for;
/// then part by part, so that what one step read is still at hand for the next; and of
/// a part those with the longest way behind them.
pub(super) type Urgency = (bool, Reverse<Option<usize>>, u32, Reverse<usize>);

pub(super) fn matches(matrix: &BTreeMap<String, Value>, wanted: &BTreeMap<String, Value>) -> bool {
    let json = |map: &BTreeMap<String, Value>| CanonicalJson::new(&Value::Object(map.clone().into_iter().collect()));
    json(matrix) == json(wanted)
}

impl<'a> Run<'a> {
    pub(super) fn new(
        options: &'a Options,
        loaded: &'a Loaded,
        sources: Vec<Option<Arc<Table>>>,
        last: Option<RunRecord>,
        emit: Emit<'a>,
    ) -> Self {
        let graph = &loaded.graph;
        let mut behind = vec![Vec::new(); graph.nodes.len()];
        for (index, node) in graph.nodes.iter().enumerate() {
            let before: std::collections::BTreeSet<usize> =
                node.inputs.iter().flat_map(|input| &input.items).flat_map(|(_, item)| item.nodes()).collect();
            before.into_iter().for_each(|before| behind[before].push(index));
        }
        let items = graph.nodes.iter().flat_map(|node| &node.inputs).flat_map(|input| &input.items);
        let items = items.map(|(_, item)| item).chain(graph.exports.iter().map(|export| &export.item));
        let choosers = items.filter_map(|item| match item {
            Item::Chosen { choice, .. } => Some(*choice),
            _ => None,
        });
        let choosers = choosers.collect();
        Self {
            options,
            loaded,
            graph,
            sources,
            last,
            emit,
            nodes: (0..graph.nodes.len()).map(|_| NodeState::new()).collect(),
            behind,
            choosers,
            work: (0..graph.nodes.len()).collect(),
            tasks: Vec::with_capacity(graph.nodes.len()),
            ready: BTreeSet::new(),
            in_flight: HashMap::new(),
            running: 0,
            memory: 0,
            stopping: false,
            summary: Summary { ok: true, ..Summary::default() },
            history: Vec::with_capacity(graph.nodes.len()),
            objects: Vec::with_capacity(graph.nodes.len()),
        }
    }

    /// With sources that were read meanwhile: what was planned holds if their schemas are as
    /// they were said to be.
    pub(super) fn with_sources(mut self, sources: Vec<Option<Arc<Table>>>) -> Self {
        let same = |(known, read): (&Option<Arc<Table>>, &Option<Arc<Table>>)| {
            known.is_none() || known.as_ref().map(|table| &table.schema) == read.as_ref().map(|table| &table.schema)
        };
        if self.sources.iter().zip(&sources).all(same) {
            self.sources = sources;
            return self;
        }
        Self::new(self.options, self.loaded, sources, self.last, self.emit)
    }

    /// What is known of the table that an item stands for.
    pub(super) fn table(&self, item: &Item) -> Option<TableView<'_>> {
        match item {
            Item::Source(index) => {
                let table = self.sources[*index].as_ref()?;
                Some(TableView { schema: &table.schema, parts: Parts::All(&table.parts), complete: true })
            }
            Item::Output { node, port } => match self.nodes[*node].output(port)? {
                OutputState::Table(table) => table.view(),
                OutputState::Blob(_) => None,
            },
            Item::Chosen { port, .. } => {
                let node = self.chosen(item)?;
                match self.nodes[node].output(port)? {
                    OutputState::Table(table) => table.view(),
                    OutputState::Blob(_) => None,
                }
            }
        }
    }

    /// The node that was chosen, when that is known.
    fn chosen(&self, item: &Item) -> Option<usize> {
        let Item::Chosen { choice, choice_port, candidates, .. } = item else { return None };
        let wanted = self.choice(*choice, choice_port)?;
        candidates.iter().copied().find(|node| matches(&self.graph.nodes[*node].matrix, &wanted))
    }

    pub(super) fn choice(&self, node: usize, port: &PortName) -> Option<BTreeMap<String, Value>> {
        let Some(OutputState::Blob(Some(blob))) = self.nodes[node].output(port) else { return None };
        let bytes = self.options.store.blob(blob).ok()?;
        let choice: Value = serde_json::from_slice(&bytes).ok()?;
        Some(choice.get("instance")?.as_object()?.iter().map(|(name, value)| (name.clone(), value.clone())).collect())
    }

    /// The blob that an item stands for, when it is there.
    fn blob(&mut self, item: &Item) -> Option<BlobRef> {
        let (node, port) = match item {
            Item::Source(_) => return None,
            Item::Output { node, port } => (*node, port),
            Item::Chosen { port, .. } => (self.chosen(item)?, port),
        };
        if port.as_str() == "metrics" {
            return self.metrics_blob(node);
        }
        match self.nodes[node].output(port)? {
            OutputState::Blob(blob) => *blob,
            OutputState::Table(_) => None,
        }
    }

    pub(super) fn metrics_blob(&mut self, node: usize) -> Option<BlobRef> {
        let state = &mut self.nodes[node];
        if state.progress != Progress::Done {
            return None;
        }
        if state.metrics_blob.is_none() {
            let json = serde_json::to_value(&state.metrics).unwrap_or_default();
            state.metrics_blob = self.options.store.put_blob(CanonicalJson::new(&json).as_str().as_bytes()).ok();
        }
        state.metrics_blob
    }

    /// Makes and looks up the tasks that can be, then takes the next one that has to be
    /// computed and for which there is room, if it is more urgent than another.
    pub(super) fn next(&mut self, than: Option<Urgency>, screen: &Sender<Event>) -> Option<Job> {
        while let Some(node) = self.work.pop_front() {
            self.advance(node);
        }
        if self.is_stopping() {
            for (_, task) in std::mem::take(&mut self.ready) {
                for task in self.in_flight.remove(&self.tasks[task].key).unwrap_or_default() {
                    self.finish_task(task, Status::Skipped, Cost::default(), Vec::new(), None);
                }
            }
            return None;
        }
        // The first that fits; one that fits nowhere runs alone.
        let fits = |(_, task): &&(Urgency, usize)| {
            self.running == 0 || self.memory.saturating_add(self.most_memory(*task)) <= self.options.memory
        };
        let place = *self.ready.iter().rev().find(fits)?;
        let (urgency, index) = place;
        if than.is_some_and(|than| urgency < than) {
            return None;
        }
        self.ready.remove(&place);
        let memory = self.most_memory(index);
        let task = &mut self.tasks[index];
        let (parts, mut spec) = (task.parts.take()?, task.spec.take()?);
        let node = &self.graph.nodes[task.node];
        spec.limits.memory = ByteSize(memory);
        self.memory += memory;
        self.running += 1;
        let (screen, step, part) = (screen.clone(), node.label.clone(), task.part);
        spec.progress = Some(Arc::new(move |done, total| {
            let _ = screen.send(Event::TaskProgressed { step: step.clone(), part, done, total });
        }));
        let may_hit = node.cache == CachePolicy::On;
        let job = Job {
            task: index,
            urgency,
            started: Some(Event::TaskStarted { step: node.label.clone(), part: task.part }),
            key: task.key,
            parts,
            spec,
            used: node.used.clone(),
            granted: node.granted.clone(),
            may_hit,
        };
        Some(job)
    }

    /// What a task may have of memory: its limit, and never more than all together.
    fn most_memory(&self, task: usize) -> u64 {
        self.graph.nodes[self.tasks[task].node].limits.memory.0.min(self.options.memory)
    }

    /// Whether nothing is to begin any more.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping || self.options.cancel.is_cancelled()
    }

    /// Whether there are tasks that nobody computes yet.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether nobody computes anything.
    pub(super) fn is_idle(&self) -> bool {
        self.running == 0
    }

    /// Gives up what could not be begun. What has its last task behind it was stopped too late.
    pub(super) fn close(&mut self) {
        for node in 0..self.nodes.len() {
            match self.nodes[node].progress {
                Progress::Open if self.is_through(node) => self.done(node),
                Progress::Open => self.give_up(node),
                _ => {}
            }
        }
    }

    /// Whether all tasks of an open node were made and have ended.
    fn is_through(&self, index: usize) -> bool {
        let state = &self.nodes[index];
        let is_by_part = state.plan.as_ref().is_some_and(|plan| plan.mode == StepMode::Map);
        let all_made = match self.mapped(index).and_then(|(_, item)| self.table(item)) {
            Some(view) if is_by_part => view.complete && state.made.len() == view.parts.len(),
            _ => state.last_made,
        };
        all_made && state.pending == 0 && state.made.iter().all(|made| *made)
    }

    /// The port of a node that is cut into parts, and what is on it.
    fn mapped(&self, index: usize) -> Option<(&'a PortName, &'a Item)> {
        let input = self.graph.nodes[index].inputs.iter().find(|input| input.port.mapped)?;
        input.items.first().map(|(_, item)| (&input.port.name, item))
    }

    fn label(&self, task: usize) -> String {
        self.graph.nodes[self.tasks[task].node].label.clone()
    }

    /// Makes the tasks of a node that can be made, and sees whether it is done.
    fn advance(&mut self, index: usize) {
        if self.nodes[index].progress != Progress::Open {
            return;
        }
        let node = &self.graph.nodes[index];
        let before = node.inputs.iter().flat_map(|input| &input.items).flat_map(|(_, item)| item.nodes());
        let mut blocked = false;
        for before in before {
            match self.nodes[before].progress {
                Progress::Failed | Progress::Skipped => return self.give_up(index),
                Progress::Blocked => blocked = true,
                Progress::Open | Progress::Done => {}
            }
        }
        if blocked {
            return self.unknown(index);
        }
        if self.is_stopping() {
            return;
        }
        match self.plan(index) {
            Ok(true) => {}
            Ok(false) => return,
            Err(problems) => {
                let step = node.label.clone();
                self.emit.tell(Event::StepRefused { step, problems });
                self.nodes[index].progress = Progress::Failed;
                self.count_node(index, Status::Failed);
                self.summary.ok = false;
                self.stopping |= self.options.fail_fast;
                self.wake(index);
                return;
            }
        }
        let Some(plan) = self.nodes[index].plan.clone() else { return };
        match plan.mode {
            StepMode::Whole => self.make_whole(index, Phase::Whole),
            StepMode::Rounds => self.make_whole(index, Phase::Rounds),
            StepMode::Map => self.make_parts(index, Phase::Map),
            StepMode::Fold => self.make_parts(index, Phase::Partial),
        }
    }

    fn wake(&mut self, index: usize) {
        self.work.extend(self.behind[index].iter().copied());
    }

    /// The inputs as a task sees them; `None` while something is missing.
    fn seen(&mut self, index: usize, part: Option<usize>, without_mapped: bool) -> Option<Vec<SeenPort>> {
        let node = &self.graph.nodes[index];
        let mut ports = Vec::with_capacity(node.inputs.len());
        for input in &node.inputs {
            if input.port.mapped && without_mapped {
                continue;
            }
            let mut items = Vec::with_capacity(input.items.len());
            for (instance, item) in &input.items {
                let seen = match input.port.kind {
                    PortKind::Blob => Seen::Blob(self.blob(item)?),
                    PortKind::Table => {
                        let view = self.table(item)?;
                        let parts = match part {
                            Some(part) if input.port.mapped => vec![view.parts.get(part)?.clone()],
                            _ if view.complete => view.parts.to_vec(),
                            _ => return None,
                        };
                        Seen::Table { schema: view.schema.clone(), parts }
                    }
                };
                items.push((instance.clone(), seen));
            }
            ports.push(SeenPort { port: input.port.name.clone(), items });
        }
        Some(ports)
    }

    fn make_whole(&mut self, index: usize, phase: Phase) {
        if !self.nodes[index].last_made
            && let Some(seen) = self.seen(index, None, false)
        {
            self.nodes[index].last_made = true;
            self.make(index, None, phase, seen, None);
        }
        let state = &self.nodes[index];
        if state.last_made && state.pending == 0 {
            self.done(index);
        }
    }

    fn make_parts(&mut self, index: usize, phase: Phase) {
        let Some((port, item)) = self.mapped(index) else { return };
        let Some(view) = self.table(item) else { return };
        let (there, complete): (Vec<bool>, bool) =
            ((0..view.parts.len()).map(|part| view.parts.get(part).is_some()).collect(), view.complete);
        for (part, is_there) in there.iter().enumerate() {
            let state = &mut self.nodes[index];
            if state.made.len() <= part {
                state.made.resize(part + 1, false);
                state.partials.resize(part + 1, None);
            }
            if *is_there && !state.made[part] {
                let Some(seen) = self.seen(index, Some(part), false) else { return };
                self.nodes[index].made[part] = true;
                self.make(index, Some(part), phase, seen, None);
            }
        }
        let state = &self.nodes[index];
        if state.progress != Progress::Open || !complete || state.pending > 0 || state.made.iter().any(|made| !made) {
            return;
        }
        if phase == Phase::Map {
            return self.done(index);
        }
        if !state.last_made {
            let partials: Option<Vec<BlobRef>> = state.partials.iter().copied().collect();
            let Some(partials) = partials else { return };
            let Some(seen) = self.seen(index, None, true) else { return };
            self.nodes[index].last_made = true;
            self.make(index, None, Phase::Merge, seen, Some((port, partials)));
        }
        if self.nodes[index].last_made && self.nodes[index].pending == 0 {
            self.done(index);
        }
    }

    /// Makes a task: gives it its key and looks for its record.
    fn make(
        &mut self,
        index: usize,
        part: Option<usize>,
        phase: Phase,
        seen: Vec<SeenPort>,
        partials: Option<(&PortName, Vec<BlobRef>)>,
    ) {
        let node = &self.graph.nodes[index];
        let Some(plan) = self.nodes[index].plan.clone() else { return };
        let (parts, key, spec) = key::task(node, &plan, phase, &seen, partials);
        let tables = seen.into_iter().filter_map(|SeenPort { port, mut items }| match (items.len(), items.pop()) {
            (1, Some((_, Seen::Table { schema, parts }))) => Some((port, schema, parts)),
            _ => None,
        });
        let task = self.tasks.len();
        self.tasks.push(Task {
            node: index,
            part,
            phase,
            key,
            parts: Some(parts),
            spec: Some(spec),
            tables: tables.collect(),
        });
        self.nodes[index].pending += 1;
        self.summary.tasks.total += 1;
        self.emit.tell(Event::TasksFound { total: self.tasks.len() });

        let mut found = None;
        let mut reason = None;
        if node.cache != CachePolicy::Off {
            found = lookup(&self.options.store, &key)
                .filter(|record| !self.choosers.contains(&index) || self.are_blobs_whole(record));
            if let (CachePolicy::MaxAge(age), Some(record)) = (node.cache, &found)
                && now().saturating_sub(record.finished_at) > age.as_secs()
            {
                found = None;
                reason = Some(MissReason::Expired);
            }
        } else {
            reason = Some(MissReason::CacheOff);
        }
        if let Some(record) = found {
            match self.apply(task, &record) {
                Ok(()) => {
                    // There are thousands: room for the next ones.
                    let Task { parts, spec, tables, .. } = &mut self.tasks[task];
                    (*parts, *spec, *tables) = (None, None, Vec::new());
                    return self.finish_task(task, Status::Cached, record.cost, record.log, None);
                }
                // It was made under another plan: run, and see.
                Err(_) => reason = Some(MissReason::Gone),
            }
        }
        if self.options.mode == Mode::Plan {
            let reason = reason.unwrap_or_else(|| self.reason(task));
            return self.would_run(task, reason);
        }
        match self.in_flight.get_mut(&key) {
            Some(others) => others.push(task),
            None => {
                self.in_flight.insert(key, vec![task]);
                let urgency = (part.is_none(), Reverse(part), node.rank, Reverse(task));
                self.ready.insert((urgency, task));
            }
        }
    }

    /// Whether no blob of a record was harmed at rest. All of them are looked
    /// at, since the store puts the harmed ones away.
    fn are_blobs_whole(&self, record: &ActionRecord) -> bool {
        let is_harmed = |output: &OutputRecord| match output {
            OutputRecord::Blob(blob) => !self.options.store.is_blob_whole(blob),
            OutputRecord::Table { .. } => false,
        };
        record.outputs.iter().filter(|(_, output)| is_harmed(output)).count() == 0
    }

    /// Why a task has no record, by what its like had in the last run.
    fn reason(&self, task: usize) -> MissReason {
        let Task { node, part, phase, key, parts, .. } = &self.tasks[task];
        let label = &self.graph.nodes[*node].label;
        let Some(last) = self.last.as_ref().and_then(|last| last.produced(label, *part, *phase)) else {
            return MissReason::New;
        };
        if last == *key {
            return MissReason::Gone;
        }
        let old = self.options.store.record::<ActionRecord>(millrace_types::wire::Kind::Action, last.as_bytes());
        match (old, parts) {
            (Some(old), Some(parts)) => MissReason::Changed(differences(&old.parts, parts)),
            _ => MissReason::Changed(Vec::new()),
        }
    }

    fn would_run(&mut self, task: usize, reason: MissReason) {
        let Task { node, part, phase, key, .. } = &self.tasks[task];
        let (node, part, phase, key) = (*node, *part, *phase, *key);
        self.nodes[node].progress = Progress::Blocked;
        self.summary.tasks.ran += 1;
        self.emit.tell(Event::TaskFinished {
            step: self.graph.nodes[node].label.clone(),
            part,
            phase: phase.as_str(),
            key: Some(key),
            status: Status::WouldRun,
            cost: Cost::default(),
            log: Vec::new(),
            failure: None,
            near: Vec::new(),
            reason: Some(reason),
        });
        self.wake(node);
    }

    /// Puts together what a record says, and gives it to the node's outputs.
    fn apply(&mut self, task: usize, record: &ActionRecord) -> Result<(), assemble::Misfit> {
        let Task { node, part, phase, tables, .. } = &self.tasks[task];
        let (node, place) = (*node, *part);
        let inputs: Vec<InputTable<'_>> =
            tables.iter().map(|(port, schema, parts)| InputTable { port, schema, parts: parts.clone() }).collect();
        self.objects.extend(record.objects());
        let mut ready = Vec::new();
        for (port, output) in &record.outputs {
            match output {
                OutputRecord::Blob(blob) => ready.push((port, OutputState::Blob(Some(*blob)))),
                OutputRecord::Table { declared, parts } => {
                    let known = match self.nodes[node].output(port) {
                        Some(OutputState::Table(table)) => table.fields.clone(),
                        _ => None,
                    };
                    let fields = match (declared, known) {
                        (Some(declared), None) => assemble::declared_fields(declared, &inputs)?,
                        (Some(declared), Some(known)) => {
                            let fields = assemble::declared_fields(declared, &inputs)?;
                            if fields != known {
                                return Err(assemble::Misfit::schemas(port));
                            }
                            fields
                        }
                        (None, Some(known)) => known,
                        (None, None) => return Err(assemble::Misfit::schemas(port)),
                    };
                    let mut table = TableState { schema: Some(assemble::schema(&fields)), ..TableState::default() };
                    for (i, record) in parts.iter().enumerate() {
                        table.put(i, assemble::part(record, i, &fields, &inputs)?);
                    }
                    table.fields = Some(fields);
                    ready.push((port, OutputState::Table(table)));
                }
            }
        }
        let by_part = *phase == Phase::Map;
        let state = &mut self.nodes[node];
        if let Some(place) = place
            && state.partials.len() > place
        {
            state.partials[place] = record.partial;
        }
        for (port, made) in ready {
            let Some((_, output)) = state.outputs.iter_mut().find(|(name, _)| name == port) else { continue };
            match (output, made) {
                (OutputState::Table(table), OutputState::Table(made)) => {
                    table.fields = made.fields;
                    table.schema = made.schema;
                    for (i, part) in made.parts.into_iter().flatten().enumerate() {
                        let place = if by_part { place.unwrap_or(0) } else { i };
                        table.put(place, Arc::unwrap_or_clone(part));
                    }
                }
                (output, made) => *output = made,
            }
        }
        for (name, value) in &record.metrics {
            *state.metrics.entry(name.clone()).or_default() += value;
        }
        Ok(())
    }

    /// Gives back a task that nobody has begun.
    pub(super) fn never_began(&mut self, task: usize) {
        for task in self.given_back(task) {
            self.finish_task(task, Status::Skipped, Cost::default(), Vec::new(), None);
        }
    }

    /// A task needs no room any more: it, and those of the same key.
    fn given_back(&mut self, task: usize) -> Vec<usize> {
        self.running -= 1;
        self.memory -= self.most_memory(task);
        self.in_flight.remove(&self.tasks[task].key).unwrap_or_else(|| vec![task])
    }

    /// Takes in what became of a task.
    pub(super) fn ended(&mut self, task: usize, outcome: Outcome) {
        let same = self.given_back(task);
        match outcome {
            Outcome::Ran(record) => {
                self.summary.add(&record.cost);
                for (i, task) in same.into_iter().enumerate() {
                    let status = if i == 0 { Status::Ran } else { Status::Cached };
                    self.take_record(task, status, &record);
                }
            }
            Outcome::Found(record) => same.into_iter().for_each(|task| self.take_record(task, Status::Cached, &record)),
            Outcome::Failed { failure, cost, log } => {
                self.summary.add(&cost);
                let cancelled = failure == Failure::Cancelled;
                self.stopping |= self.options.fail_fast && !cancelled;
                for task in same {
                    let status = if cancelled { Status::Skipped } else { Status::Failed };
                    self.finish_task(task, status, cost, log.clone(), Some(failure.clone()));
                }
            }
        }
    }

    fn take_record(&mut self, task: usize, status: Status, record: &ActionRecord) {
        match self.apply(task, record) {
            Ok(()) => self.finish_task(task, status, record.cost, record.log.clone(), None),
            Err(misfit) => {
                let failure = Failure::Misuse { message: misfit.to_string() };
                self.finish_task(task, Status::Failed, record.cost, record.log.clone(), Some(failure));
            }
        }
    }

    fn finish_task(&mut self, task: usize, status: Status, cost: Cost, log: Vec<LogLine>, failure: Option<Failure>) {
        let Task { node, part, phase, key, .. } = &self.tasks[task];
        let (node, part, phase, key) = (*node, *part, *phase, *key);
        let limits = self.graph.nodes[node].limits;
        let near = if status == Status::Ran { near_limits(&cost, &limits) } else { Vec::new() };
        let step = self.graph.nodes[node].step.to_string();
        let record = TaskRecord { step, instance: self.label(task), part, phase, key: Some(key), status, cost };
        self.count(node, record, log.clone());
        self.emit.tell(Event::TaskFinished {
            step: self.graph.nodes[node].label.clone(),
            part,
            phase: phase.as_str(),
            key: Some(key),
            status,
            cost,
            log,
            failure,
            near,
            reason: None,
        });
        let state = &mut self.nodes[node];
        state.pending -= 1;
        match status {
            Status::Ran | Status::Cached => {
                state.done += 1;
                self.work.push_back(node);
            }
            Status::Failed => {
                self.summary.ok = false;
                state.progress = Progress::Failed;
            }
            _ => state.progress = Progress::Skipped,
        }
        // A part that is there can be worked on, whatever becomes of the others.
        self.wake(node);
    }

    fn count(&mut self, index: usize, task: TaskRecord, log: Vec<LogLine>) {
        let tasks = &mut self.summary.tasks;
        match task.status {
            Status::Ran => tasks.ran += 1,
            Status::Cached => tasks.cached += 1,
            Status::Failed => tasks.failed += 1,
            Status::Skipped => tasks.skipped += 1,
            Status::WouldRun | Status::Unknown => {}
        }
        if task.key.is_none() {
            tasks.total += 1;
        }
        self.history.push((index, task, log));
    }

    /// A node of which nothing was made.
    fn count_node(&mut self, index: usize, status: Status) {
        let node = &self.graph.nodes[index];
        let (step, instance) = (node.step.to_string(), node.label.clone());
        let (part, phase, cost) = (None, Phase::Whole, Cost::default());
        self.count(index, TaskRecord { step, instance, part, phase, key: None, status, cost }, Vec::new());
    }

    fn done(&mut self, index: usize) {
        let state = &mut self.nodes[index];
        if state.progress != Progress::Open {
            return;
        }
        state.progress = Progress::Done;
        for (_, output) in &mut state.outputs {
            if let OutputState::Table(table) = output {
                table.complete = true;
            }
        }
        self.wake(index);
    }

    fn give_up(&mut self, index: usize) {
        let state = &mut self.nodes[index];
        state.progress = Progress::Skipped;
        self.summary.ok = false;
        self.settle(index, Status::Skipped);
    }

    fn unknown(&mut self, index: usize) {
        self.nodes[index].progress = Progress::Blocked;
        self.settle(index, Status::Unknown);
    }

    fn settle(&mut self, index: usize, status: Status) {
        self.emit.tell(Event::TaskFinished {
            step: self.graph.nodes[index].label.clone(),
            part: None,
            phase: Phase::Whole.as_str(),
            key: None,
            status,
            cost: Cost::default(),
            log: Vec::new(),
            failure: None,
            near: Vec::new(),
            reason: None,
        });
        self.count_node(index, status);
        self.wake(index);
    }
}
