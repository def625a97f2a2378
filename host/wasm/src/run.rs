//! Running a task: one guest, or several in rounds.

use std::time::Instant;

use millrace_platform::thread_cpu_us;
use millrace_types::{Failure, Phase, TaskOutcome, TaskSpec};
use wasmtime::component::Resource;

use crate::component::Component;
use crate::conclude::conclude;
use crate::context::TaskContext;
use crate::error::one_line;
use crate::failure::needs_loop_checks;
use crate::rewrite::FuelChecks;
use crate::rounds;
use crate::state::Running;
use crate::world::TaskRep;

impl Component {
    /// Runs a task to its end. Failures are outcomes.
    pub fn run(&self, spec: TaskSpec, context: TaskContext<'_>) -> TaskOutcome {
        match spec.phase {
            Phase::Rounds => rounds::run(self, spec, context),
            Phase::Map | Phase::Whole | Phase::Partial | Phase::Merge => self.run_alone(spec, &context),
        }
    }

    fn run_alone(&self, mut spec: TaskSpec, context: &TaskContext<'_>) -> TaskOutcome {
        let started = Instant::now();
        let cpu_started = thread_cpu_us();
        let limits = spec.limits;
        let mut deadline = started.checked_add(limits.time);
        let mut checks = FuelChecks::AtCalls;
        let mut outcome = loop {
            let asked = Instant::now();
            let code = match self.code(checks) {
                Ok(code) => code,
                Err(error) => return TaskOutcome::failed(Failure::Host { message: error.to_string() }),
            };
            // Compiling does not count as time of the task.
            deadline = deadline.and_then(|deadline| deadline.checked_add(asked.elapsed()));
            let running = Running::new(spec, context.chunks.clone(), context.progress.clone(), true);
            let mut store = match self.store(&limits, deadline, context.cancel, Some(running), None, checks) {
                Ok(store) => store,
                Err(error) => return TaskOutcome::failed(Failure::Host { message: one_line(&error) }),
            };
            let answer = Self::call(&code.pre, &mut store, &code.run, (Resource::<TaskRep>::new_borrow(0),));
            match needs_loop_checks(&answer).then(|| store.data_mut().task.take()) {
                Some(Some(stopped)) => (spec, checks) = (stopped.spec, FuelChecks::AtLoops),
                _ => break conclude(store, answer, &limits),
            }
        };
        outcome.cost.wall_us = started.elapsed().as_micros() as u64;
        outcome.cost.cpu_us = thread_cpu_us().saturating_sub(cpu_started);
        outcome
    }
}
