//! The executors of tasks: in this process, or each task in one of its own.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use millrace_store::Store;
use millrace_types::Failure;
use millrace_wasm::Cancel;

use super::cache::ActionCache;
use super::compute::Compute;
use super::exec::{self, EXEC_FAILED, ExecReport};
use super::job::{JobResult, PreparedTask, Work};
use crate::components::Components;

/// Computes tasks. Every failure is a result: there are no other errors.
///
/// A record is published before the task counts as done, so that a crash at any instant leaves
/// either no record or a complete one. Two executors may compute one key at the same time: the
/// results are equal.
pub(crate) trait TaskExecutor: Send + Sync {
    /// Computes a task and publishes its record, unless another process does so first.
    fn execute(&self, task: PreparedTask) -> JobResult;
}

/// Computes tasks in this process.
pub(super) struct LocalExecutor<'a> {
    pub(super) compute: Compute<'a>,
    pub(super) components: &'a Components,
}

impl TaskExecutor for LocalExecutor<'_> {
    fn execute(&self, PreparedTask { work, used }: PreparedTask) -> JobResult {
        self.compute.run(work, || self.components.component(&used))
    }
}

/// How often a running process is checked.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Computes each task in a process of its own, `host exec KEY`, over the same store, as a scheduler
/// does on other machines.
pub(super) struct ProcessExecutor<'a> {
    pub(super) store: &'a Store,
    pub(super) components: &'a Components,
    pub(super) cancel: &'a Cancel,
    pub(super) program: PathBuf,
    /// Arguments that name the remote store, if there is one.
    pub(super) arguments: Vec<String>,
}

impl ProcessExecutor<'_> {
    /// Waits for the process of a task to end, and kills it when the run is cancelled.
    fn spawn(&self, work: &Work) -> Result<ExecReport, Failure> {
        let host = |message: String| Failure::Host { message };
        let mut command = Command::new(&self.program);
        command.arg("exec").arg(work.key.to_string()).arg("--json").arg("--store").arg(self.store.root());
        if !work.may_hit {
            command.arg("--again");
        }
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = command.spawn();
        let mut child = started.map_err(|error| host(format!("cannot start `{}`: {error}", self.program.display())))?;
        loop {
            match child.try_wait() {
                Ok(Some(_)) => break,
                Ok(None) if self.cancel.is_cancelled() => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(Failure::Cancelled);
                }
                Ok(None) => std::thread::sleep(POLL_INTERVAL),
                Err(error) => return Err(host(format!("cannot wait for the process of a task: {error}"))),
            }
        }
        let output = child.wait_with_output().map_err(|error| host(error.to_string()))?;
        let report = output.stdout.split(|byte| *byte == b'\n').find_map(|line| serde_json::from_slice(line).ok());
        report.ok_or_else(|| {
            let stderr = String::from_utf8_lossy(&output.stderr);
            host(format!("the process of the task ended with {}: {}", output.status, stderr.trim()))
        })
    }
}

impl TaskExecutor for ProcessExecutor<'_> {
    fn execute(&self, PreparedTask { work, used }: PreparedTask) -> JobResult {
        let bytes = match self.components.bytes(&used) {
            Ok(bytes) => bytes,
            Err(error) => return JobResult::host(error.to_string()),
        };
        if let Err(error) = exec::prepare(self.store, &work, &bytes) {
            return JobResult::host(error.to_string());
        }
        match self.spawn(&work) {
            Err(failure) => JobResult::failed(failure),
            Ok(ExecReport { status, .. }) if status != EXEC_FAILED => match self.store.lookup(&work.key) {
                Some(record) if status == exec::EXEC_RAN => JobResult::Ran(Box::new(record)),
                Some(record) => JobResult::Found(Box::new(record)),
                None => JobResult::host("the process of the task published no record that can be used"),
            },
            Ok(ExecReport { failure, cost, log, .. }) => {
                let failure = failure.unwrap_or(Failure::Host { message: "it failed without a reason".to_owned() });
                JobResult::Failed { failure, cost, log }
            }
        }
    }
}
