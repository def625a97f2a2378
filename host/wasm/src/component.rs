//! A compiled component: describe, plan, run.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use millrace_types::action_key::WORLD_VERSION;
use millrace_types::{ByteSize, ColumnName, ComponentDigest, Cost, Fuel, Limits, Phase, PortName, Schema, bounds};
use serde::{Deserialize, Serialize};
use wasmtime::Store;
use wasmtime::component::{
    Component as Compiled, ComponentExportIndex, ComponentNamedList, InstancePre, Lift, Linker, Lower, Resource,
};

use crate::claims::{check_plan, check_rounds, mode, problem};
use crate::compile::load_or_compile;
use crate::engine::{Cancel, Engine};
use crate::failure::{emit_failure, failure, is_lost, not_made};
use crate::limits::Limiter;
use crate::outcome::{Failure, TaskOutcome};
use crate::output::OutputField;
use crate::rewrite::{Looks, is_composed};
use crate::rounds::{self, Seat};
use crate::slots::Slot;
use crate::task::{Data, Running, TaskSpec, TaskState, cut};
use crate::wasi::{self, Wasi};
use crate::world::{PortSchema, TaskRep, WitFailure, WitField, WitManifest, WitPortKind, WitProblem, WitStepPlan};

/// A table or a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PortKind {
    /// Columns.
    Table,
    /// Bytes.
    Blob,
}

/// How the host may cut the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Each part by itself.
    Map,
    /// `partial` for each part, then one `merge`.
    Fold,
    /// All parts in order.
    Whole,
    /// All parts at once, in guests that meet.
    Rounds,
}

/// A port as the manifest has it; an output is never optional, many or mapped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Its name.
    pub name: PortName,
    /// What it carries.
    pub kind: PortKind,
    /// What it is for.
    pub doc: String,
    /// The pipeline may leave it out.
    pub optional: bool,
    /// It takes all instances of a matrix step.
    pub many: bool,
    /// It is cut into parts.
    pub mapped: bool,
}

/// What a component says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it does.
    pub doc: String,
    /// How it works, unless a plan says otherwise.
    pub mode: Mode,
    /// Its inputs.
    pub inputs: Vec<Port>,
    /// Its outputs.
    pub outputs: Vec<Port>,
    /// JSON Schema of its params.
    pub params_schema: String,
    /// Memory in bytes, fuel and time in ms that suit it.
    pub limits: (Option<u64>, Option<u64>, Option<u64>),
}

/// What `plan` is told of a connected port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanInput {
    /// The port.
    pub port: PortName,
    /// The table's schema; none for a blob.
    pub schema: Option<Schema>,
}

/// What a step says of one use of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepPlan {
    /// How it works here.
    pub mode: Mode,
    /// The columns that it can see, by port, in the order of the schema.
    pub reads: Vec<(PortName, Vec<ColumnName>)>,
    /// The columns of its output tables; none where only the run knows.
    pub outputs: Vec<(PortName, Option<Vec<OutputField>>)>,
}

/// Something wrong with a use of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The param it is about, as a path.
    pub param: Option<String>,
    /// What is wrong.
    pub message: String,
    /// The name that was not found.
    pub missing: Option<String>,
    /// The names there are.
    pub candidates: Vec<String>,
    /// Where in the param's text.
    pub span: Option<(u32, u32)>,
}

/// A component that cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ComponentError {
    /// Not a component at all.
    #[error("it is not a WebAssembly component: {reason}")]
    NotAComponent {
        /// What wasmtime says.
        reason: String,
    },
    /// A component, but no step.
    #[error("it is a component, but not a step: it does not export `millrace:step/step@{WORLD_VERSION}`")]
    NotAStep,
    /// A step of another version of the world.
    #[error(
        "it was built for version {found} of the step world, and this host has {WORLD_VERSION}: build it again with the SDK of this version"
    )]
    WorldVersion {
        /// The version it names.
        found: String,
    },
    /// It wants something that there is not.
    #[error("it cannot be linked: {reason}")]
    Link {
        /// What wasmtime says.
        reason: String,
    },
    /// What it says of itself or of a use is not possible.
    #[error("its {what} is not possible: {reason}")]
    Claims {
        /// `manifest` or `plan`.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// It did not answer.
    #[error("it failed in `{what}`: {reason}")]
    Failed {
        /// `describe` or `plan`.
        what: &'static str,
        /// How.
        reason: String,
    },
}

/// A compiled component.
#[derive(Clone)]
pub struct Component {
    digest: ComponentDigest,
    engine: Engine,
    /// That lets the host look where something is called.
    code: Code,
    has_wasi: bool,
    origin: Arc<Origin>,
}

/// Compiled code, linked, and what is called in it.
#[derive(Clone)]
pub(crate) struct Code {
    pre: InstancePre<TaskState>,
    describe: ComponentExportIndex,
    plan: ComponentExportIndex,
    run: ComponentExportIndex,
}

/// What code is made of.
struct Origin {
    bytes: Cow<'static, [u8]>,
    /// Where code is kept.
    compiled: Option<PathBuf>,
    /// That lets the host look everywhere: made when a task needs it.
    everywhere: OnceLock<Result<Code, ComponentError>>,
}

fn one_line(error: &wasmtime::Error) -> String {
    cut(format!("{error:#}").replace('\n', " "), 600)
}

impl Engine {
    /// Compiles a component, or loads what was compiled before. `compiled` is
    /// where compiled code is kept, in a folder of this user.
    ///
    /// # Errors
    /// When the bytes are no component of the step world.
    pub fn component(
        &self,
        bytes: impl Into<Cow<'static, [u8]>>,
        compiled: Option<PathBuf>,
    ) -> Result<Component, ComponentError> {
        let bytes = bytes.into();
        let digest = ComponentDigest::from(blake3::hash(&bytes));
        // A module begins like a component; the next four bytes tell them apart.
        if bytes.get(..8) == Some(b"\0asm\x01\0\0\0") {
            let reason = "it is a core module; make a component of it with `wasm-tools component new`".to_owned();
            return Err(ComponentError::NotAComponent { reason });
        }
        if bytes.get(..4) != Some(b"\0asm") {
            let reason = "it does not begin like WebAssembly".to_owned();
            return Err(ComponentError::NotAComponent { reason });
        }
        let engine = match is_composed(&bytes) {
            true => self.for_composed().map_err(|error| ComponentError::Link { reason: one_line(&error) })?,
            false => self.clone(),
        };
        let origin = Arc::new(Origin { bytes, compiled, everywhere: OnceLock::new() });
        let code = engine.code(&origin, Looks::AtCalls)?;
        let has_wasi = engine.has_wasi(code.pre.component());
        Ok(Component { digest, engine, code, has_wasi, origin })
    }

    fn code(&self, origin: &Origin, looks: Looks) -> Result<Code, ComponentError> {
        let code = load_or_compile(self, &origin.bytes, origin.compiled.as_deref(), looks)
            .map_err(|error| ComponentError::NotAComponent { reason: one_line(&error) })?;
        self.check_world(&code)?;
        let unlinked = |error: wasmtime::Error| ComponentError::Link { reason: one_line(&error) };
        let linker =
            if self.has_wasi(&code) { &self.linker_with_wasi(&code).map_err(unlinked)? } else { &*self.linker };
        let pre = linker.instantiate_pre(&code).map_err(unlinked)?;
        let step = format!("millrace:step/step@{WORLD_VERSION}");
        let step = code.get_export_index(None, &step).ok_or(ComponentError::NotAStep)?;
        let function = |name: &str| code.get_export_index(Some(&step), name).ok_or(ComponentError::NotAStep);
        Ok(Code { pre, describe: function("describe")?, plan: function("plan")?, run: function("run")? })
    }

    fn has_wasi(&self, code: &Compiled) -> bool {
        code.component_type().imports(&self.inner).any(|(name, _)| wasi::is_wasi(name))
    }

    /// The step world, WASI, and for what else of WASI a component imports a trap.
    fn linker_with_wasi(&self, code: &Compiled) -> wasmtime::Result<Linker<TaskState>> {
        let mut linker = (*self.linker).clone();
        wasi::link(&mut linker)?;
        let ours = |name: &str| wasi::is_wasi(name) || name.starts_with("millrace:step/");
        let ty = code.component_type();
        if let Some((name, _)) = ty.imports(&self.inner).find(|(name, _)| !ours(name)) {
            return Err(wasmtime::format_err!("it imports `{name}`, which is neither of the step world nor of WASI"));
        }
        wasi::stub(&mut linker, code, &self.inner)?;
        Ok(linker)
    }

    fn check_world(&self, code: &Compiled) -> Result<(), ComponentError> {
        let ty = code.component_type();
        let imports = ty.imports(&self.inner).map(|(name, _)| name.to_owned());
        let exports = ty.exports(&self.inner).map(|(name, _)| name.to_owned());
        for name in imports.chain(exports) {
            if let Some(rest) = name.strip_prefix("millrace:step/") {
                let found = rest.split_once('@').map_or("?", |(_, version)| version);
                if found != WORLD_VERSION {
                    return Err(ComponentError::WorldVersion { found: cut(found.to_owned(), 40) });
                }
            }
        }
        Ok(())
    }
}

impl Component {
    /// Of its bytes.
    pub fn digest(&self) -> ComponentDigest {
        self.digest
    }

    fn store(
        &self,
        limits: &Limits,
        deadline: Option<Instant>,
        cancel: &Cancel,
        task: Option<Running>,
        seat: Option<Seat>,
        looks: Looks,
    ) -> wasmtime::Result<Store<TaskState>> {
        let limiter = Limiter::new(limits, deadline, cancel.clone(), seat, looks == Looks::AtCalls);
        let mut wasi = None;
        if self.has_wasi {
            let spec = task.as_ref().map(|task| &task.spec);
            let made = spec.map_or_else(|| Ok(Wasi::closed(&[0; 32])), |spec| Wasi::new(&spec.seed, &spec.grants));
            wasi = Some(Box::new(made?));
        }
        let mut store = Store::new(&self.engine.inner, TaskState { limiter, task, panic: None, wasi });
        store.limiter(|state| &mut state.limiter);
        store.set_hostcall_fuel(bounds::CALL_BYTES);
        if self.engine.counts {
            store.set_fuel(limits.fuel.0)?;
        }
        Ok(store)
    }

    fn call<P, R>(
        pre: &InstancePre<TaskState>,
        store: &mut Store<TaskState>,
        function: &ComponentExportIndex,
        params: P,
    ) -> wasmtime::Result<R>
    where
        P: ComponentNamedList + Lower,
        R: 'static,
        (R,): ComponentNamedList + Lift,
    {
        let instance = pre.instantiate(&mut *store).map_err(not_made)?;
        let function = instance.get_typed_func::<P, (R,)>(&mut *store, function)?;
        Ok(function.call(&mut *store, params)?.0)
    }

    fn ask<P, R>(
        &self,
        what: &'static str,
        function: impl Fn(&Code) -> &ComponentExportIndex,
        params: P,
    ) -> Result<R, ComponentError>
    where
        P: ComponentNamedList + Lower + Clone,
        R: 'static,
        (R,): ComponentNamedList + Lift,
    {
        let limits = Limits {
            memory: ByteSize(bounds::PLAN_MEMORY_BYTES),
            fuel: Fuel(bounds::PLAN_FUEL),
            time: Duration::from_secs(10),
        };
        let failed = |reason: String| ComponentError::Failed { what, reason };
        let mut deadline = Instant::now().checked_add(limits.time);
        let mut looks = Looks::AtCalls;
        let (store, answer) = loop {
            let asked = Instant::now();
            let code = self.code(looks)?;
            deadline = deadline.and_then(|deadline| deadline.checked_add(asked.elapsed()));
            let store = self.store(&limits, deadline, &Cancel::default(), None, None, looks);
            let mut store = store.map_err(|error| failed(one_line(&error)))?;
            let answer = Self::call(&code.pre, &mut store, function(code), params.clone());
            if looks == Looks::AtCalls && is_lost(&answer) {
                looks = Looks::Everywhere;
                continue;
            }
            break (store, answer);
        };
        answer.map_err(|error| match failure(&error, &limits, store.data().panic.clone()) {
            Failure::Trap { message, .. } | Failure::Misuse { message } | Failure::Host { message } => failed(message),
            Failure::Memory { limit, .. } => failed(format!("it needs more than {limit} of memory")),
            Failure::Fuel { .. } | Failure::Time { .. } => failed("it does not come to an end".to_owned()),
            other => failed(format!("{other:?}")),
        })
    }

    /// What the component says of itself.
    ///
    /// # Errors
    /// When it does not answer, or what it says is not possible.
    pub fn describe(&self) -> Result<Manifest, ComponentError> {
        let manifest: WitManifest = self.ask("describe", |code| &code.describe, ())?;
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
            outputs.push(Port {
                name,
                kind: kind(port.kind),
                doc: port.doc,
                optional: false,
                many: false,
                mapped: false,
            });
        }
        let mapped: Vec<&Port> = inputs.iter().filter(|port| port.mapped).collect();
        if mapped.len() > 1 || mapped.iter().any(|port| port.many || port.kind == PortKind::Blob) {
            return Err(claims("it has a mapped port that is not a single table".to_owned()));
        }
        let mode = mode(manifest.mode);
        if mapped.is_empty() && mode != Mode::Whole {
            return Err(claims("it works by parts and has no mapped port".to_owned()));
        }
        check_rounds(mode, &outputs).map_err(claims)?;
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
            limits: (manifest.limits.memory_bytes, manifest.limits.fuel, manifest.limits.time_ms),
        })
    }

    /// What the step says of one use of it, or what is wrong with the use.
    ///
    /// # Errors
    /// When it does not answer, or what it says is not possible.
    pub fn plan(
        &self,
        manifest: &Manifest,
        params: &str,
        inputs: &[PlanInput],
    ) -> Result<Result<StepPlan, Vec<Problem>>, ComponentError> {
        let schemas: Vec<PortSchema> = inputs
            .iter()
            .map(|input| PortSchema {
                port: input.port.to_string(),
                schema: input.schema.as_ref().map(|schema| schema.fields.iter().map(WitField::from).collect()),
            })
            .collect();
        let answer: Result<WitStepPlan, Vec<WitProblem>> =
            self.ask("plan", |code| &code.plan, (params.to_owned(), schemas))?;
        match answer {
            Ok(plan) => check_plan(manifest, inputs, plan).map(Ok),
            Err(problems) => Ok(Err(problems.into_iter().take(bounds::PROBLEMS).map(problem).collect())),
        }
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Runs a task to its end, whatever that is. One in rounds has several guests, which
    /// take slots from where `slot` came.
    pub fn run(&self, spec: TaskSpec, data: Arc<dyn Data>, cancel: &Cancel, slot: Slot) -> TaskOutcome {
        match spec.phase {
            Phase::Rounds => rounds::run(self, spec, &data, cancel, slot),
            _ => self.run_alone(spec, &data, cancel),
        }
    }

    fn code(&self, looks: Looks) -> Result<&Code, ComponentError> {
        match looks {
            Looks::AtCalls => Ok(&self.code),
            Looks::Everywhere => {
                let make = || self.engine.code(&self.origin, looks);
                self.origin.everywhere.get_or_init(make).as_ref().map_err(Clone::clone)
            }
        }
    }

    /// As it is linked for guests that meet.
    pub(crate) fn in_rounds(&self, looks: Looks) -> wasmtime::Result<Code> {
        let code = self.code(looks)?;
        let component = code.pre.component();
        let mut linker =
            if self.has_wasi { self.engine.linker_with_wasi(component)? } else { (*self.engine.linker).clone() };
        rounds::link(&mut linker)?;
        Ok(Code { pre: linker.instantiate_pre(component)?, ..code.clone() })
    }

    fn run_alone(&self, mut spec: TaskSpec, data: &Arc<dyn Data>, cancel: &Cancel) -> TaskOutcome {
        let started = Instant::now();
        let cpu_started = cpu_us();
        let limits = spec.limits;
        let mut deadline = started.checked_add(limits.time);
        let mut looks = Looks::AtCalls;
        let mut outcome = loop {
            let asked = Instant::now();
            let code = match self.code(looks) {
                Ok(code) => code,
                Err(error) => return TaskOutcome::failed(Failure::Host { message: error.to_string() }),
            };
            // That something is compiled is no matter of the task.
            deadline = deadline.and_then(|deadline| deadline.checked_add(asked.elapsed()));
            let running = Running::new(spec, data.clone(), true);
            let mut store = match self.store(&limits, deadline, cancel, Some(running), None, looks) {
                Ok(store) => store,
                Err(error) => return TaskOutcome::failed(Failure::Host { message: one_line(&error) }),
            };
            let answer = Self::call(&code.pre, &mut store, &code.run, (Resource::<TaskRep>::new_borrow(0),));
            match is_lost(&answer).then(|| store.data_mut().task.take()) {
                Some(Some(lost)) => (spec, looks) = (lost.spec, Looks::Everywhere),
                _ => break conclude(store, answer, &limits),
            }
        };
        outcome.cost.wall_us = started.elapsed().as_micros() as u64;
        outcome.cost.cpu_us = cpu_us().saturating_sub(cpu_started);
        outcome
    }

    /// Runs one of several guests of a task, which waits for the others now and then. What
    /// it costs of time is for others to say.
    pub(crate) async fn run_guest(
        &self,
        code: &Code,
        looks: Looks,
        spec: TaskSpec,
        data: Arc<dyn Data>,
        cancel: &Cancel,
        seat: Seat,
    ) -> TaskOutcome {
        let limits = spec.limits;
        if seat.goes_on().is_err() {
            return TaskOutcome::failed(Failure::Cancelled);
        }
        let meeting = seat.meeting.clone();
        let running = Some(Running::new(spec, data, seat.guest == 0));
        let mut store = match self.store(&limits, meeting.deadline, cancel, running, Some(seat), looks) {
            Ok(store) => store,
            Err(error) => return TaskOutcome::failed(Failure::Host { message: one_line(&error) }),
        };
        let answer = async {
            let instance = code.pre.instantiate_async(&mut store).await.map_err(not_made)?;
            let function = instance.get_typed_func::<_, (Result<(), WitFailure>,)>(&mut store, &code.run)?;
            Ok(function.call_async(&mut store, (Resource::<TaskRep>::new_borrow(0),)).await?.0)
        };
        let answer = answer.await;
        if is_lost(&answer) {
            meeting.is_lost.store(true, Ordering::Relaxed);
        }
        conclude(store, answer, &limits)
    }
}

/// What a guest came to.
fn conclude(store: Store<TaskState>, answer: wasmtime::Result<Result<(), WitFailure>>, limits: &Limits) -> TaskOutcome {
    // Of components of several: it is the greater, for it counts what was put in.
    let counted = limits.fuel.0.saturating_sub(store.get_fuel().unwrap_or(limits.fuel.0));
    let TaskState { limiter, task, panic, wasi } = store.into_data();
    let Some(running) = task else {
        let message = "a task lost its state: please report this".to_owned();
        return TaskOutcome::failed(Failure::Host { message });
    };
    let Running { outputs, metrics, mut log, bytes_read, bytes_written, .. } = running;
    let printed = wasi.map(|wasi| wasi.into_log()).unwrap_or_default();
    let room = bounds::LOG_LINES.saturating_sub(log.len());
    log.extend(printed.into_iter().take(room));
    let result = match answer {
        Ok(Ok(())) => outputs.finish().map_err(emit_failure),
        Ok(Err(WitFailure { message, column, row })) => {
            Err(Failure::Step { message: cut(message, bounds::MESSAGE_BYTES), column, row })
        }
        Err(error) => Err(failure(&error, limits, panic)),
    };
    let fuel = limiter.fuel_used.max(counted).min(limits.fuel.0);
    let cost = Cost { fuel, peak_memory_bytes: limiter.peak, bytes_read, bytes_written, ..Cost::default() };
    TaskOutcome { result, metrics: metrics.into_iter().collect(), log, cost }
}

pub(crate) fn cpu_us() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000
}
