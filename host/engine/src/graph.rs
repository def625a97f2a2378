//! Step instances and what connects them: matrix spread out, references resolved,
//! params put in. Everything that can be known without looking at data.
//!
//! Long because names, ports, instances and exports are resolved against each other, and a
//! mistake in one must not be reported again by the next.

use std::collections::{BTreeMap, HashMap};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use millrace_tables::read::Format;
use millrace_types::{ByteSize, CanonicalJson, Fuel, Limits, PortName, StepName, bounds};
use millrace_wasm::{Port, PortKind};
use serde_json::Value;

use crate::components::{Components, Used};
use crate::diagnostic::{Diagnostic, Place};
use crate::grants::Granted;
use crate::pipeline::{CachePolicy, Pick, Pipeline, Reference, Scope, Source, Step, substitute};

/// Where an item on a port comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// A source, by its place among the sources.
    Source(usize),
    /// An output of a node.
    Output {
        /// The node.
        node: usize,
        /// Its output.
        port: PortName,
    },
    /// The output of the one node that another has chosen.
    Chosen {
        /// The node that chooses.
        choice: usize,
        /// The output with the choice.
        choice_port: PortName,
        /// The nodes to choose from.
        candidates: Vec<usize>,
        /// The output that is meant.
        port: PortName,
    },
}

/// One connected input port.
#[derive(Debug, Clone)]
pub struct NodeInput {
    /// The port, as the manifest has it.
    pub port: Port,
    /// One item, or several with their matrix values where instances are gathered.
    pub items: Vec<(Option<CanonicalJson>, Item)>,
}

/// An instance of a step.
pub struct Node {
    /// The step.
    pub step: StepName,
    /// Its place among the steps of the pipeline.
    pub definition: usize,
    /// The matrix values of this instance.
    pub matrix: BTreeMap<String, Value>,
    /// `train[l2=0.01,learning_rate=0.1]`
    pub label: String,
    /// Its params, `${…}` put in.
    pub params: CanonicalJson,
    /// Its component.
    pub used: Arc<Used>,
    /// What a task of it may use.
    pub limits: Limits,
    /// What else it may see.
    pub(crate) granted: Arc<Granted>,
    /// When a hit counts.
    pub cache: CachePolicy,
    /// What is connected, in the order of port names.
    pub inputs: Vec<NodeInput>,
    /// How many nodes are behind it, one after the other: the longer, the sooner.
    pub rank: u32,
}

/// A file to write.
#[derive(Debug, Clone)]
pub struct NodeExport {
    /// Where.
    pub path: PathBuf,
    /// What.
    pub item: Item,
    /// Where it is asked for.
    pub place: Place,
}

/// A pipeline, spread out.
pub struct Graph {
    /// Of the pipeline, with `${…}` put in.
    pub sources: Vec<Source>,
    /// Every node after those that it needs.
    pub nodes: Vec<Node>,
    /// What is written.
    pub exports: Vec<NodeExport>,
}

impl Item {
    /// The nodes that must be done before.
    pub fn nodes(&self) -> Vec<usize> {
        match self {
            Self::Source(_) => Vec::new(),
            Self::Output { node, .. } => vec![*node],
            Self::Chosen { choice, candidates, .. } => {
                [*choice].into_iter().chain(candidates.iter().copied()).collect()
            }
        }
    }
}

fn join(a: &BTreeMap<String, Value>, b: &BTreeMap<String, Value>) -> Option<BTreeMap<String, Value>> {
    if a.iter().any(|(name, value)| b.get(name).is_some_and(|other| other != value)) {
        return None;
    }
    Some(a.iter().chain(b).map(|(name, value)| (name.clone(), value.clone())).collect())
}

fn label(step: &StepName, matrix: &BTreeMap<String, Value>) -> String {
    if matrix.is_empty() {
        return step.to_string();
    }
    let value = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let pairs: Vec<String> = matrix.iter().map(|(name, of)| format!("{name}={}", value(of))).collect();
    format!("{step}[{}]", pairs.join(","))
}

fn matrix_json(matrix: &BTreeMap<String, Value>) -> CanonicalJson {
    CanonicalJson::new(&Value::Object(matrix.iter().map(|(name, value)| (name.clone(), value.clone())).collect()))
}

struct Builder<'a> {
    pipeline: &'a Pipeline,
    params: &'a BTreeMap<String, Value>,
    params_files: &'a [PathBuf],
    store: PathBuf,
    nodes: Vec<Node>,
    /// Nodes of each step, by its place in the pipeline.
    of_step: Vec<Vec<usize>>,
    errors: Vec<Diagnostic>,
}

/// Spreads a pipeline out.
///
/// # Errors
/// Everything that is wrong with names, connections and components.
pub fn build(
    pipeline: &Pipeline,
    params: &BTreeMap<String, Value>,
    params_files: &[PathBuf],
    components: &mut Components,
) -> Result<Graph, Vec<Diagnostic>> {
    let mut builder = Builder {
        pipeline,
        params,
        params_files,
        store: components.store().root().to_owned(),
        nodes: Vec::with_capacity(pipeline.steps.len()),
        of_step: vec![Vec::new(); pipeline.steps.len()],
        errors: Vec::new(),
    };
    let sources = builder.sources();
    let used: Vec<Option<Arc<Used>>> = pipeline
        .steps
        .iter()
        .map(|step| {
            let loaded = components.load(&step.uses.0, &step.folder, &step.uses.1);
            loaded.map_err(|error| builder.errors.push(error)).ok()
        })
        .collect();
    let Some(order) = builder.order() else { return Err(builder.errors) };
    for index in order {
        if let Some(used) = &used[index] {
            match Granted::find(components.store(), &pipeline.steps[index]) {
                Ok(granted) => builder.step(index, used, &Arc::new(granted)),
                Err(errors) => builder.errors.extend(errors),
            }
        }
    }
    // What a step with a mistake left out must not look like another mistake.
    let exports = if builder.errors.is_empty() { builder.exports(&sources) } else { Vec::new() };
    if !builder.errors.is_empty() {
        return Err(builder.errors);
    }
    let mut nodes = builder.nodes;
    for index in (0..nodes.len()).rev() {
        let rank = nodes[index].rank + 1;
        let before: Vec<usize> =
            nodes[index].inputs.iter().flat_map(|input| &input.items).flat_map(|(_, item)| item.nodes()).collect();
        for node in before {
            nodes[node].rank = nodes[node].rank.max(rank);
        }
    }
    Ok(Graph { sources, nodes, exports })
}

impl Builder<'_> {
    fn sources(&mut self) -> Vec<Source> {
        let scope = Scope { params: self.params.clone(), matrix: BTreeMap::new() };
        let mut sources = self.pipeline.sources.clone();
        for source in &mut sources {
            for (text, place) in [Some(&mut source.path), source.filter.as_mut()].into_iter().flatten() {
                match scope.text(text) {
                    Ok(filled) => *text = filled,
                    Err(message) => self.errors.push(Diagnostic::new(message).at(place, "here")),
                }
            }
        }
        sources
    }

    /// The texts of a step's references, with the matrix' placeholders out of
    /// the way: only the name before `.` and `[` is needed here.
    fn depends(&self, step: &Step, places: &HashMap<&str, usize>) -> Vec<(usize, Place)> {
        let mut found = Vec::new();
        for (_, text, place) in &step.inputs {
            let Ok(reference) = Reference::parse(&plain(text)) else { continue };
            let mut names = vec![reference.name];
            if let Pick::Chosen(choice) = reference.pick {
                names.push(choice);
            }
            for name in names {
                if let Some(index) = places.get(name.as_str()) {
                    found.push((*index, place.clone()));
                }
            }
        }
        found
    }

    /// The steps, each after those that it needs.
    fn order(&mut self) -> Option<Vec<usize>> {
        let count = self.pipeline.steps.len();
        let places: HashMap<&str, usize> =
            self.pipeline.steps.iter().enumerate().map(|(index, step)| (step.name.as_str(), index)).collect();
        let depends: Vec<Vec<(usize, Place)>> =
            self.pipeline.steps.iter().map(|step| self.depends(step, &places)).collect();
        let mut order = Vec::with_capacity(count);
        // 0: not seen, 1: on the path, 2: done.
        let mut state = vec![0u8; count];
        for start in 0..count {
            if state[start] != 0 {
                continue;
            }
            let mut path = vec![(start, 0)];
            state[start] = 1;
            while let Some((step, next)) = path.last_mut() {
                let Some((needed, place)) = depends[*step].get(*next) else {
                    state[*step] = 2;
                    order.push(*step);
                    path.pop();
                    continue;
                };
                *next += 1;
                match state[*needed] {
                    0 => {
                        state[*needed] = 1;
                        path.push((*needed, 0));
                    }
                    1 => {
                        let from = path.iter().position(|(step, _)| step == needed).unwrap_or(0);
                        let mut names: Vec<&str> =
                            path[from..].iter().map(|(step, _)| self.pipeline.steps[*step].name.as_str()).collect();
                        names.push(self.pipeline.steps[*needed].name.as_str());
                        names.reverse();
                        let chain = names.join("` → `");
                        let error = Diagnostic::new(format!("the steps form a cycle: `{chain}`"));
                        self.errors.push(error.at(place, "this closes the cycle"));
                        return None;
                    }
                    _ => {}
                }
            }
        }
        Some(order)
    }

    fn step(&mut self, index: usize, used: &Arc<Used>, granted: &Arc<Granted>) {
        let step = &self.pipeline.steps[index];
        let manifest = &used.manifest;
        for (i, (name, _, place)) in step.matrix.iter().enumerate() {
            if step.matrix[..i].iter().any(|(known, ..)| known == name) {
                self.errors.push(Diagnostic::new(format!("the matrix has `{name}` twice")).at(place, "here"));
            }
        }
        let combinations = step.matrix.iter().try_fold(1usize, |all, (_, values, _)| all.checked_mul(values.len()));
        if combinations.is_none_or(|all| all > bounds::INSTANCES) {
            self.errors.push(too_many(step));
            return;
        }
        let own = own_matrix(step);
        let errors = self.errors.len();
        let mut instances: Vec<(BTreeMap<String, Value>, Vec<NodeInput>)> = Vec::new();
        for matrix in own {
            let scope = Scope { params: self.params.clone(), matrix: matrix.clone() };
            let mut partial = vec![(matrix, Vec::<NodeInput>::new())];
            for (port, text, place) in &step.inputs {
                let Some(port) = self.input_port(step, used, port.as_ref(), place) else { continue };
                let text = match scope.text(text) {
                    Ok(text) => text,
                    Err(message) => {
                        self.errors.push(Diagnostic::new(message).at(place, "here"));
                        continue;
                    }
                };
                let Some(choices) = self.resolve(&text, place, &port) else { continue };
                let mut joined = Vec::new();
                for (matrix, inputs) in &partial {
                    for (of_input, items) in &choices {
                        let Some(matrix) = join(matrix, of_input) else { continue };
                        if joined.len() >= bounds::INSTANCES {
                            self.errors.push(too_many(step));
                            return;
                        }
                        let mut inputs = inputs.clone();
                        inputs.push(NodeInput { port: port.clone(), items: items.clone() });
                        joined.push((matrix, inputs));
                    }
                }
                partial = joined;
            }
            instances.extend(partial);
            if instances.len() > bounds::INSTANCES {
                self.errors.push(too_many(step));
                return;
            }
        }
        self.check_connected(step, used);
        if self.errors.len() > errors {
            return;
        }
        if instances.is_empty() {
            let error = Diagnostic::new(format!(
                "no instance of `{}` is left: its inputs have no matrix values in common",
                step.name
            ));
            self.errors.push(error.at(&step.place, "this step"));
        }
        let declared = (manifest.limits.0, manifest.limits.1, manifest.limits.2);
        for (matrix, mut inputs) in instances {
            let scope = Scope { params: self.params.clone(), matrix: matrix.clone() };
            let mut wrong = Vec::new();
            let params = substitute(&step.params.value, &scope, "", &mut wrong);
            for (path, message) in wrong {
                let place = step.params.place(&path).unwrap_or(&step.place);
                self.errors.push(Diagnostic::new(message).at(place, "here"));
            }
            inputs.sort_by(|a, b| a.port.name.cmp(&b.port.name));
            let standard = Limits::default();
            let limits = Limits {
                memory: step.limits.memory.or(declared.0.map(ByteSize)).unwrap_or(standard.memory),
                fuel: step.limits.fuel.or(declared.1.map(Fuel)).unwrap_or(standard.fuel),
                time: step.limits.time.or(declared.2.map(std::time::Duration::from_millis)).unwrap_or(standard.time),
            };
            self.of_step[index].push(self.nodes.len());
            self.nodes.push(Node {
                step: step.name.clone(),
                definition: index,
                label: label(&step.name, &matrix),
                matrix,
                params: CanonicalJson::new(&params),
                used: used.clone(),
                limits,
                granted: granted.clone(),
                cache: step.cache,
                inputs,
                rank: 0,
            });
        }
    }

    fn input_port(&mut self, step: &Step, used: &Used, name: Option<&PortName>, place: &Place) -> Option<Port> {
        let ports = &used.manifest.inputs;
        let found = match name {
            Some(name) => ports.iter().find(|port| port.name == *name),
            None => ports.iter().find(|port| port.mapped).or_else(|| ports.first()),
        };
        if found.is_none() {
            let error = match name {
                Some(name) => Diagnostic::new(format!("`{}` has no input `{name}`", step.uses.0))
                    .at(place, "connected here")
                    .suggest(name.as_str(), ports.iter().map(|port| port.name.as_str())),
                None => Diagnostic::new(format!("`{}` has no inputs", step.uses.0)).at(place, "connected here"),
            };
            self.errors.push(error);
        }
        found.cloned()
    }

    fn check_connected(&mut self, step: &Step, used: &Used) {
        let ports = &used.manifest.inputs;
        let default = ports.iter().find(|port| port.mapped).or_else(|| ports.first());
        let mut seen: HashMap<&PortName, &Place> = HashMap::new();
        for (name, _, place) in &step.inputs {
            let Some(name) = name.as_ref().or_else(|| default.map(|port| &port.name)) else { continue };
            if let Some(first) = seen.insert(name, place) {
                let error = Diagnostic::new(format!("the input `{name}` of `{}` is connected twice", step.name));
                self.errors.push(error.at(first, "the first").at(place, "the second"));
            }
        }
        for port in ports.iter().filter(|port| !port.optional && !seen.contains_key(&port.name)) {
            let error = Diagnostic::new(format!("the input `{}` of `{}` is not connected", port.name, step.name));
            self.errors.push(error.at(&step.place, "this step").help(format!("it takes {}", port.doc)));
        }
    }

    /// What a reference stands for: for each set of matrix values, the items.
    fn resolve(&mut self, text: &str, place: &Place, port: &Port) -> Option<Vec<Choice>> {
        let found = self.items(text, place)?;
        let (kind, picked) = found;
        if kind != port.kind {
            let name = |kind| if kind == PortKind::Table { "a table" } else { "a blob" };
            let message =
                format!("the input `{}` takes {}, and `{text}` is {}", port.name, name(port.kind), name(kind));
            self.errors.push(Diagnostic::new(message).at(place, "connected here"));
            return None;
        }
        match picked {
            Picked::Gathered(items) if port.many => {
                let items = items.into_iter().map(|(matrix, item)| (Some(matrix_json(&matrix)), item)).collect();
                Some(vec![(BTreeMap::new(), items)])
            }
            Picked::Gathered(_) => {
                let message = format!("the input `{}` takes one item, and `{text}` is all instances", port.name);
                self.errors.push(Diagnostic::new(message).at(place, "connected here"));
                None
            }
            Picked::Each(items) => {
                let instance = |matrix: &BTreeMap<String, Value>| port.many.then(|| matrix_json(matrix));
                Some(
                    items
                        .into_iter()
                        .map(|(matrix, item)| {
                            let instance = instance(&matrix);
                            (matrix, vec![(instance, item)])
                        })
                        .collect(),
                )
            }
        }
    }

    fn items(&mut self, text: &str, place: &Place) -> Option<(PortKind, Picked)> {
        let reference = match Reference::parse(text) {
            Ok(reference) => reference,
            Err(message) => {
                let error = Diagnostic::new(format!("`{text}` is no reference: {message}")).at(place, "here");
                self.errors.push(error.help("write `SOURCE`, `STEP.PORT`, `STEP.PORT[*]` or `STEP.PORT[CHOICE]`"));
                return None;
            }
        };
        let name = &reference.name;
        if let Some(source) = self.pipeline.sources.iter().position(|source| source.name == *name) {
            if reference.port.is_some() || reference.pick != Pick::Each {
                let error = Diagnostic::new(format!("the source `{name}` has neither ports nor instances"));
                self.errors.push(error.at(place, "here"));
                return None;
            }
            return Some((PortKind::Table, Picked::Each(vec![(BTreeMap::new(), Item::Source(source))])));
        }
        let Some(step) = self.pipeline.steps.iter().position(|step| step.name == *name) else {
            let sources = self.pipeline.sources.iter().map(|source| source.name.as_str());
            let names = sources.chain(self.pipeline.steps.iter().map(|step| step.name.as_str()));
            let error = Diagnostic::new(format!("there is no source or step `{name}`")).at(place, "not known");
            self.errors.push(error.suggest(name.as_str(), names));
            return None;
        };
        // A step with a mistake of its own has no nodes; it was reported.
        let nodes = self.of_step[step].clone();
        let first = *nodes.first()?;
        let (kind, port) = self.output_port(first, reference.port.as_ref(), place)?;
        let item = |node: usize| Item::Output { node, port: port.clone() };
        let with_matrix = |node: &usize| (self.nodes[*node].matrix.clone(), item(*node));
        Some((
            kind,
            match reference.pick {
                Pick::Each => Picked::Each(nodes.iter().map(with_matrix).collect()),
                Pick::All => Picked::Gathered(nodes.iter().map(with_matrix).collect()),
                Pick::Where(wanted) => {
                    let fits = |node: &&usize| {
                        let matrix = &self.nodes[**node].matrix;
                        wanted.iter().all(|(name, value)| matrix.get(name).is_some_and(|found| selects(value, found)))
                    };
                    let picked: Vec<_> = nodes.iter().filter(fits).map(with_matrix).collect();
                    if picked.is_empty() {
                        let labels: Vec<&str> =
                            nodes.iter().take(12).map(|node| self.nodes[*node].label.as_str()).collect();
                        let error = Diagnostic::new(format!("no instance of `{name}` has these matrix values"));
                        self.errors.push(error.at(place, "here").help(format!("there are `{}`", labels.join("`, `"))));
                        return None;
                    }
                    // What was picked by value no longer tells instances apart.
                    let rest = |(mut matrix, item): (BTreeMap<String, Value>, Item)| {
                        matrix.retain(|name, _| !wanted.contains_key(name));
                        (matrix, item)
                    };
                    Picked::Each(picked.into_iter().map(rest).collect())
                }
                Pick::Chosen(choice) => {
                    let found = self.pipeline.steps.iter().position(|step| step.name == choice);
                    let Some(chooser) = found.and_then(|index| self.of_step[index].first().copied()) else {
                        if found.is_none() {
                            let names = self.pipeline.steps.iter().map(|step| step.name.as_str());
                            let error = Diagnostic::new(format!("there is no step `{choice}` to choose"))
                                .at(place, "not known");
                            self.errors.push(error.suggest(choice.as_str(), names));
                        }
                        return None;
                    };
                    let (kind_of_choice, choice_port) = self.output_port(chooser, None, place)?;
                    if kind_of_choice != PortKind::Blob || found.is_some_and(|index| self.of_step[index].len() != 1) {
                        let error = Diagnostic::new(format!(
                            "`{choice}` does not choose an instance: it has no single blob to say which"
                        ));
                        self.errors.push(error.at(place, "here").help("a step such as `std:best` does"));
                        return None;
                    }
                    let chosen = Item::Chosen { choice: chooser, choice_port, candidates: nodes, port };
                    Picked::Each(vec![(BTreeMap::new(), chosen)])
                }
            },
        ))
    }

    fn output_port(&mut self, node: usize, name: Option<&PortName>, place: &Place) -> Option<(PortKind, PortName)> {
        let node = &self.nodes[node];
        let outputs = &node.used.manifest.outputs;
        let metrics = "metrics";
        match name {
            Some(name) if name.as_str() == metrics => return Some((PortKind::Blob, name.clone())),
            Some(name) => {
                if let Some(port) = outputs.iter().find(|port| port.name == *name) {
                    return Some((port.kind, port.name.clone()));
                }
                let names = outputs.iter().map(|port| port.name.as_str()).chain([metrics]);
                let error = Diagnostic::new(format!("`{}` has no output `{name}`", node.step)).at(place, "not known");
                let error = error.suggest(name.as_str(), names);
                self.errors.push(error);
            }
            None => {
                if let [port] = outputs.as_slice() {
                    return Some((port.kind, port.name.clone()));
                }
                let names: Vec<String> = outputs.iter().map(|port| format!("`{}.{}`", node.step, port.name)).collect();
                let error = if names.is_empty() {
                    Diagnostic::new(format!("`{}` has no output but its metrics", node.step))
                        .help(format!("write `{}.metrics`", node.step))
                } else {
                    Diagnostic::new(format!("`{}` has several outputs", node.step))
                        .help(format!("write {}", names.join(" or ")))
                };
                self.errors.push(error.at(place, "which one?"));
            }
        }
        None
    }

    /// What is wrong with a file as the place of an export.
    fn unfit(&self, path: &Path, kind: PortKind, place: &Place, sources: &[Source]) -> Option<Diagnostic> {
        let wrong = |what: String, help: &str| {
            Some(Diagnostic::new(format!("`{}` {what}", path.display())).at(place, "this export").help(help))
        };
        let is_packed = path.extension().is_some_and(|extension| extension == "gz" || extension == "zip");
        if path.file_name().is_none() || path.is_dir() {
            return wrong("is a folder".to_owned(), "an export is a file: add a name");
        }
        if kind == PortKind::Table && (is_packed || Format::of(path).is_none()) {
            let help = "its name tells the format: .parquet, .csv, .arrow or .ndjson";
            return wrong("is no name for a table".to_owned(), help);
        }
        let above = path.ancestors().skip(1).find(|above| above.exists());
        if let Some(file) = above.filter(|above| !above.as_os_str().is_empty() && !above.is_dir()) {
            return wrong(format!("cannot be written: `{}` is no folder", file.display()), "choose another folder");
        }
        let help = "results go to files of their own; what they are made from stays as it is";
        if self.pipeline.files.iter().any(|file| same_file(&file.path, path)) {
            return wrong("is the pipeline itself".to_owned(), help);
        }
        if self.params_files.iter().any(|file| same_file(file, path)) {
            return wrong("is a file of params".to_owned(), help);
        }
        if let Some(source) = sources.iter().find(|source| reads(source, path)) {
            return wrong(format!("is read by the source `{}`", source.name), help);
        }
        if crate::source::resolved(path).starts_with(crate::source::resolved(&self.store)) {
            return wrong("lies in the store".to_owned(), help);
        }
        let grants = |step: &&Step| {
            let mut folders = step.grants.read.iter().map(|(name, _)| step.folder.join(name));
            folders.any(|folder| path.ancestors().skip(1).any(|above| same_file(above, &folder)))
        };
        if let Some(step) = self.pipeline.steps.iter().find(grants) {
            return wrong(format!("lies in a folder that is granted to the step `{}`", step.name), help);
        }
        None
    }

    fn exports(&mut self, sources: &[Source]) -> Vec<NodeExport> {
        let mut out: Vec<NodeExport> = Vec::new();
        for export in &self.pipeline.exports {
            let Some((kind, picked)) = self.items(&export.reference, &export.place) else { continue };
            let items = match picked {
                Picked::Each(items) => items,
                Picked::Gathered(items) => items,
            };
            for (matrix, item) in items {
                let scope = Scope { params: self.params.clone(), matrix };
                match scope.text(&export.path) {
                    Ok(path) => {
                        let path = tidy(&export.folder.join(path));
                        if let Some(error) = self.unfit(&path, kind, &export.place, sources) {
                            self.errors.push(error);
                            break;
                        }
                        let within = |known: &&NodeExport| {
                            known.path != path && (known.path.starts_with(&path) || path.starts_with(&known.path))
                        };
                        if let Some(known) = out.iter().find(within) {
                            let message =
                                format!("`{}` and `{}` cannot both be files", known.path.display(), path.display());
                            let error = Diagnostic::new(message).at(&known.place, "one").at(&export.place, "the other");
                            self.errors.push(error);
                            break;
                        }
                        if out.iter().any(|known| known.path == path) {
                            let error =
                                Diagnostic::new(format!("several artifacts would be written to `{}`", path.display()));
                            let help =
                                "choose one with `[CHOICE]` or `[name=value]`, or put `${matrix.NAME}` into the path";
                            self.errors.push(error.at(&export.place, "these").help(help));
                            break;
                        }
                        out.push(NodeExport { path, item, place: export.place.clone() });
                    }
                    Err(message) => {
                        self.errors.push(Diagnostic::new(message).at(&export.place, "in the path of this export"))
                    }
                }
            }
        }
        out
    }
}

/// The path without `.`, and without `..` where a name stands before it, so that one
/// file has one name.
fn tidy(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if matches!(out.components().next_back(), Some(Component::Normal(_))) => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

/// Whether a source reads a file, or would if it were there.
fn reads(source: &Source, path: &Path) -> bool {
    let found =
        crate::source::Look::of(source).files().is_ok_and(|files| files.iter().any(|file| same_file(file, path)));
    found || crate::source::matches(source, path)
}

fn same_file(a: &Path, b: &Path) -> bool {
    let absolute = |path: &Path| std::path::absolute(path).map(|path| tidy(&path)).unwrap_or_default();
    absolute(a) == absolute(b) || a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b))
}

/// Matrix values, and what stands on a port under them.
type Choice = (BTreeMap<String, Value>, Vec<(Option<CanonicalJson>, Item)>);

enum Picked {
    Each(Vec<(BTreeMap<String, Value>, Item)>),
    Gathered(Vec<(BTreeMap<String, Value>, Item)>),
}

fn same_value(a: &Value, b: &Value) -> bool {
    a == b || (a.is_number() && b.is_number() && a.as_f64() == b.as_f64())
}

/// Whether a value in `[name=value]`, which has no quotes, means this one.
fn selects(wanted: &Value, found: &Value) -> bool {
    same_value(wanted, found)
        || matches!(found, Value::String(text) if wanted.as_str().map_or_else(|| wanted.to_string(), str::to_owned) == *text)
}

/// A reference whose `${…}` do not stand in the way of reading its name.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        out.push('x');
        rest = after.split_once('}').map_or("", |(_, after)| after);
    }
    out.push_str(rest);
    out
}

fn too_many(step: &Step) -> Diagnostic {
    let message = format!("the step `{}` has more than {} instances", step.name, bounds::INSTANCES);
    Diagnostic::new(message).at(&step.place, "this step")
}

/// Every combination of the values of a step's own matrix.
fn own_matrix(step: &Step) -> Vec<BTreeMap<String, Value>> {
    let mut all = vec![BTreeMap::new()];
    for (name, values, _) in &step.matrix {
        let with = |matrix: &BTreeMap<String, Value>, value: &Value| {
            let mut matrix = matrix.clone();
            matrix.insert(name.clone(), value.clone());
            matrix
        };
        all = all.iter().flat_map(|matrix| values.iter().map(move |value| with(matrix, value))).collect();
    }
    all
}
