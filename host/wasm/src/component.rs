//! A compiled component: describe and plan. [`crate::run`] runs its tasks.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use millrace_types::action_key::WORLD_VERSION;
use millrace_types::{
    ByteSize, ComponentDigest, Failure, Fuel, Limits, Manifest, PlanInput, Problem, StepPlan, bounds,
};
use wasmtime::Store;
use wasmtime::component::{
    Component as Compiled, ComponentExportIndex, ComponentNamedList, InstancePre, Lift, Linker, Lower,
};

use crate::cancel::Cancel;
use crate::claims::{check_manifest, check_plan, problem};
use crate::collective::Rank;
use crate::compile::load_or_compile;
use crate::engine::Engine;
use crate::error::{ComponentError, one_line};
use crate::failure::{failure, needs_loop_checks, not_instantiated};
use crate::limits::Limiter;
use crate::rewrite::{FuelChecks, is_composed};
use crate::state::{Running, TaskState};
use crate::text::sanitize;
use crate::wasi::{self, Wasi};
use crate::world::{PortSchema, WitField, WitManifest, WitProblem, WitStepPlan};

/// A compiled component.
#[derive(Clone)]
pub struct Component {
    digest: ComponentDigest,
    pub(crate) engine: Engine,
    /// With checks at calls.
    code: Code,
    has_wasi: bool,
    origin: Arc<Origin>,
}

/// Compiled code, linked, and its exported functions.
#[derive(Clone)]
pub(crate) struct Code {
    pub(crate) pre: InstancePre<TaskState>,
    describe: ComponentExportIndex,
    plan: ComponentExportIndex,
    pub(crate) run: ComponentExportIndex,
}

impl Code {
    /// The same code, linked by another linker.
    pub(crate) fn linked(&self, linker: &Linker<TaskState>) -> wasmtime::Result<Self> {
        Ok(Self { pre: linker.instantiate_pre(self.pre.component())?, ..self.clone() })
    }
}

/// What the code is compiled from.
struct Origin {
    bytes: Cow<'static, [u8]>,
    /// Code that ships with the host.
    shipped: Option<&'static [u8]>,
    /// Where compiled code is kept.
    compiled: Option<PathBuf>,
    /// With checks in all loops: compiled when a task needs it.
    at_loops: OnceLock<Result<Code, ComponentError>>,
}

impl Engine {
    /// Compiles a component, or loads what was compiled before: `shipped` is code of
    /// [`precompile`](crate::precompile) that is part of this program; `compiled` is where
    /// compiled code is kept, in a folder of this user.
    ///
    /// # Errors
    /// When the bytes are no component of the step world.
    pub fn component(
        &self,
        bytes: impl Into<Cow<'static, [u8]>>,
        shipped: Option<&'static [u8]>,
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
        let origin = Arc::new(Origin { bytes, shipped, compiled, at_loops: OnceLock::new() });
        let code = engine.code(&origin, FuelChecks::AtCalls)?;
        let has_wasi = engine.has_wasi(code.pre.component());
        Ok(Component { digest, engine, code, has_wasi, origin })
    }

    fn code(&self, origin: &Origin, checks: FuelChecks) -> Result<Code, ComponentError> {
        let code = load_or_compile(self, &origin.bytes, origin.shipped, origin.compiled.as_deref(), checks)
            .map_err(|error| ComponentError::NotAComponent { reason: one_line(&error) })?;
        self.check_world(&code)?;
        let unlinked = |error: wasmtime::Error| ComponentError::Link { reason: one_line(&error) };
        let pre = self.linker_for(&code).and_then(|linker| linker.instantiate_pre(&code)).map_err(unlinked)?;
        let step = format!("millrace:step/step@{WORLD_VERSION}");
        let step = code.get_export_index(None, &step).ok_or(ComponentError::NotAStep)?;
        let function = |name: &str| code.get_export_index(Some(&step), name).ok_or(ComponentError::NotAStep);
        Ok(Code { pre, describe: function("describe")?, plan: function("plan")?, run: function("run")? })
    }

    /// The linker for a component: with WASI if it imports that.
    fn linker_for(&self, code: &Compiled) -> wasmtime::Result<Cow<'_, Linker<TaskState>>> {
        Ok(if self.has_wasi(code) { Cow::Owned(self.linker_with_wasi(code)?) } else { Cow::Borrowed(&*self.linker) })
    }

    fn has_wasi(&self, code: &Compiled) -> bool {
        code.component_type().imports(&self.inner).any(|(name, _)| wasi::is_wasi(name))
    }

    /// The step world and WASI; what else of WASI a component imports is a trap.
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
                    return Err(ComponentError::WorldVersion { found: sanitize(found.to_owned(), 40) });
                }
            }
        }
        Ok(())
    }
}

impl Component {
    /// A linker for it, to add to.
    pub(crate) fn linker(&self, code: &Compiled) -> wasmtime::Result<Linker<TaskState>> {
        Ok(self.engine.linker_for(code)?.into_owned())
    }

    /// The digest of its bytes.
    pub fn digest(&self) -> ComponentDigest {
        self.digest
    }

    /// A store for one guest.
    pub(crate) fn store(
        &self,
        limits: &Limits,
        deadline: Option<Instant>,
        cancel: &Cancel,
        task: Option<Running>,
        rank: Option<Rank>,
        checks: FuelChecks,
    ) -> wasmtime::Result<Store<TaskState>> {
        let limiter = Limiter::new(limits, deadline, cancel.clone(), rank, checks == FuelChecks::AtCalls);
        let mut wasi = None;
        if self.has_wasi {
            let spec = task.as_ref().map(|task| &task.spec);
            let view = spec.map_or_else(|| Ok(Wasi::closed()), |spec| Wasi::new(&spec.key, &spec.grants));
            wasi = Some(Box::new(view?));
        }
        let mut store = Store::new(&self.engine.inner, TaskState { limiter, task, panic: None, wasi });
        store.limiter(|state| &mut state.limiter);
        store.set_hostcall_fuel(bounds::CALL_BYTES);
        if self.engine.counts {
            store.set_fuel(limits.fuel.0)?;
        }
        Ok(store)
    }

    /// Instantiates the component and calls a function of it.
    pub(crate) fn call<P, R>(
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
        let instance = pre.instantiate(&mut *store).map_err(not_instantiated)?;
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
        let mut checks = FuelChecks::AtCalls;
        let (store, answer) = loop {
            let asked = Instant::now();
            let code = self.code(checks)?;
            deadline = deadline.and_then(|deadline| deadline.checked_add(asked.elapsed()));
            let store = self.store(&limits, deadline, &Cancel::default(), None, None, checks);
            let mut store = store.map_err(|error| failed(one_line(&error)))?;
            let answer = Self::call(&code.pre, &mut store, function(code), params.clone());
            if checks == FuelChecks::AtCalls && needs_loop_checks(&answer) {
                checks = FuelChecks::AtLoops;
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

    /// Asks the component for its manifest.
    ///
    /// # Errors
    /// When it fails, or its manifest is not valid.
    pub fn describe(&self) -> Result<Manifest, ComponentError> {
        let manifest: WitManifest = self.ask("describe", |code| &code.describe, ())?;
        check_manifest(manifest)
    }

    /// Asks the step for its plan of one use, or for the errors in that use.
    ///
    /// # Errors
    /// When it fails, or its plan is not valid.
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

    /// Its code with these checks.
    pub(crate) fn code(&self, checks: FuelChecks) -> Result<&Code, ComponentError> {
        match checks {
            FuelChecks::AtCalls => Ok(&self.code),
            FuelChecks::AtLoops => {
                let make = || self.engine.code(&self.origin, checks);
                self.origin.at_loops.get_or_init(make).as_ref().map_err(Clone::clone)
            }
        }
    }
}
