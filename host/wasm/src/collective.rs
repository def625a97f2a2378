//! Reductions across the guests of one task, as MPI's `allreduce` and `exscan`.
//!
//! How many ranks there are, and which parts each has, follows from the parts and their rows
//! alone. Numbers are combined in the order of ranks, so a guest cannot observe the machine,
//! how many guests compute at a time, or which of them was first.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::Scope;
use std::time::{Duration, Instant};

use millrace_platform::thread_cpu_us;
use millrace_threads::{POLL_INTERVAL, Slot, Slots, lock};
use millrace_types::{Failure, Fuel, Limits, TaskOutcome};

use crate::trap::{EmitError, Stop};

/// Ranks of a task at most; with more parts, a rank has several. The rounding of sums depends
/// on it, so a change needs a new `KEY_VERSION`.
pub(crate) const MAX_RANKS: usize = 32;

/// How the numbers of all ranks are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reduction {
    Sum,
    Min,
    Max,
    ExclusiveScan,
}

impl Reduction {
    fn as_str(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Min => "min",
            Self::Max => "max",
            Self::ExclusiveScan => "before",
        }
    }

    fn pair(self, a: f64, b: f64) -> f64 {
        let combined = match self {
            Self::Sum | Self::ExclusiveScan => a + b,
            Self::Min if b < a || b.is_nan() => b,
            Self::Max if b > a || b.is_nan() => b,
            Self::Min | Self::Max => a,
        };
        // The canonical NaN, as in guests.
        if combined.is_nan() { f64::NAN } else { combined }
    }

    /// The result of each rank.
    fn combine(self, all: &[Vec<f64>]) -> Combined {
        let add = |sum: &mut Vec<f64>, more: &Vec<f64>| {
            sum.iter_mut().zip(more).for_each(|(a, b)| *a = self.pair(*a, *b));
        };
        if self == Self::ExclusiveScan {
            let mut before = vec![0.0; all.first().map_or(0, Vec::len)];
            let step = |values: &Vec<f64>| {
                let mut next = before.clone();
                add(&mut next, values);
                Arc::from(std::mem::replace(&mut before, next))
            };
            return Combined::Each(all.iter().map(step).collect());
        }
        let mut rest = all.iter();
        let mut combined = rest.next().cloned().unwrap_or_default();
        combined.iter_mut().filter(|value| value.is_nan()).for_each(|value| *value = f64::NAN);
        rest.for_each(|values| add(&mut combined, values));
        Combined::Same(combined.into())
    }
}

/// The result of a round. Each rank takes it once.
enum Combined {
    Same(Arc<[f64]>),
    Each(Vec<Arc<[f64]>>),
}

impl Combined {
    fn take(&mut self, rank: usize) -> Arc<[f64]> {
        match self {
            Self::Same(all) => all.clone(),
            Self::Each(each) => std::mem::take(&mut each[rank]),
        }
    }
}

/// Why there is no further round.
enum Broken {
    /// The guests broke a rule.
    Misuse(String),
    /// The guests together used up their fuel.
    Fuel,
    /// The guest of this rank failed.
    Failed(usize),
}

impl Broken {
    fn error(&self) -> wasmtime::Error {
        match self {
            Self::Misuse(message) => wasmtime::Error::new(EmitError::Misuse(message.clone())),
            Self::Fuel => wasmtime::Error::new(Stop::Fuel),
            Self::Failed(_) => wasmtime::Error::new(Stop::PeerFailed),
        }
    }

    fn ended() -> Self {
        Self::Misuse("its guests do not agree: one ended while another waited for its numbers".to_owned())
    }
}

/// A guest, run until it has to wait for the others.
pub(crate) type Guest = Pin<Box<dyn Future<Output = TaskOutcome> + Send>>;

/// The state of the current round.
struct Round {
    number: u64,
    /// The reduction that the first rank asked for, and of how many numbers.
    asked: Option<(Reduction, usize)>,
    /// By rank; complete when the last one has arrived.
    values: Vec<Vec<f64>>,
    arrived: usize,
    /// The result of the previous round: each rank takes it before it arrives at this one.
    combined: Combined,
    /// Fuel used, by rank.
    used: Vec<u64>,
    broken: Option<Broken>,
    /// Guests that can continue.
    ready: VecDeque<(usize, Guest)>,
    /// Guests that wait for the others.
    waiting: Vec<(usize, Guest)>,
    ended: Vec<Option<TaskOutcome>>,
    running: usize,
    cpu_us: u64,
}

impl Round {
    /// Closes the round and wakes all waiting guests.
    fn close(&mut self, broken: Broken) -> wasmtime::Error {
        self.ready.extend(self.waiting.drain(..));
        match (&mut self.broken, broken) {
            (Some(Broken::Failed(known)), Broken::Failed(rank)) => *known = rank.min(*known),
            (Some(_), _) => {}
            (none, broken) => *none = Some(broken),
        }
        self.broken.as_ref().map_or_else(|| wasmtime::Error::new(Stop::PeerFailed), Broken::error)
    }

    /// Fuel that all guests have reported.
    fn used(&self) -> u64 {
        self.used.iter().fold(0, |all, used| all.saturating_add(*used))
    }

    /// Records the outcome of a guest.
    fn finish(&mut self, rank: usize, outcome: TaskOutcome) {
        let is_ok = outcome.result.is_ok();
        self.ended[rank] = Some(outcome);
        self.running -= 1;
        if !is_ok {
            self.close(Broken::Failed(rank));
        } else if self.arrived > 0 {
            self.close(Broken::ended());
        }
    }
}

/// The collective of the guests of a task: they exchange numbers here, and worker threads
/// take the guests that can continue.
pub(crate) struct Collective {
    fuel: Fuel,
    /// The deadline of the task.
    pub(crate) deadline: Option<Instant>,
    /// Memory of all guests together.
    pub(crate) memory: AtomicU64,
    /// One guest has to restart with checks in all loops, so all restart.
    pub(crate) needs_loop_checks: AtomicBool,
    round: Mutex<Round>,
    changed: Condvar,
}

impl Collective {
    /// A collective of `ranks` guests.
    pub(crate) fn new(ranks: usize, limits: &Limits, deadline: Option<Instant>) -> Self {
        let round = Round {
            number: 0,
            asked: None,
            values: vec![Vec::new(); ranks],
            arrived: 0,
            combined: Combined::Same(Arc::default()),
            used: vec![0; ranks],
            broken: None,
            ready: VecDeque::new(),
            waiting: Vec::new(),
            ended: vec![None; ranks],
            running: ranks,
            cpu_us: 0,
        };
        let (memory, needs_loop_checks) = (AtomicU64::new(0), AtomicBool::new(false));
        Self {
            fuel: limits.fuel,
            deadline,
            memory,
            needs_loop_checks,
            round: Mutex::new(round),
            changed: Condvar::new(),
        }
    }

    fn round(&self) -> MutexGuard<'_, Round> {
        lock(&self.round)
    }

    /// Contributes the numbers of a rank; returns the number of the round. `used` is the fuel
    /// that its guest has used so far.
    fn arrive(&self, rank: usize, how: Reduction, values: Vec<f64>, used: u64) -> wasmtime::Result<u64> {
        let mut locked = self.round();
        let round = &mut *locked;
        if let Some(broken) = &round.broken {
            return Err(broken.error());
        }
        if round.ended.iter().any(Option::is_some) {
            return Err(round.close(Broken::ended()));
        }
        let asked = (how, values.len());
        let (first, many) = *round.asked.get_or_insert(asked);
        if (first, many) != asked {
            let [(a, m), (b, n)] = {
                let mut both = [(first.as_str(), many), (how.as_str(), values.len())];
                both.sort_unstable();
                both
            };
            let message =
                format!("its guests do not agree: one asked for `{a}` of {m} numbers, another for `{b}` of {n}");
            return Err(round.close(Broken::Misuse(message)));
        }
        round.values[rank] = values;
        round.used[rank] = used;
        round.arrived += 1;
        let number = round.number;
        if round.arrived == round.values.len() {
            if round.used() > self.fuel.0 {
                return Err(round.close(Broken::Fuel));
            }
            round.combined = how.combine(&round.values);
            round.values.iter_mut().for_each(|values| *values = Vec::new());
            (round.number, round.asked, round.arrived) = (number + 1, None, 0);
            round.ready.extend(round.waiting.drain(..));
            self.changed.notify_all();
        }
        Ok(number)
    }

    /// The result of a round for a rank, once the round is complete.
    fn result(&self, rank: usize, number: u64) -> Poll<wasmtime::Result<Arc<[f64]>>> {
        let mut round = self.round();
        match &round.broken {
            _ if round.number > number => Poll::Ready(Ok(round.combined.take(rank))),
            Some(broken) => Poll::Ready(Err(broken.error())),
            None => Poll::Pending,
        }
    }

    /// Adds the guests, by rank.
    pub(crate) fn start(&self, guests: impl Iterator<Item = (usize, Guest)>) {
        self.round().ready = guests.collect();
    }

    /// The outcomes by rank, and the processor time of all guests in microseconds.
    pub(crate) fn finish(&self) -> (Vec<TaskOutcome>, u64) {
        let mut round = self.round();
        (round.ended.drain(..).flatten().collect(), round.cpu_us)
    }

    /// Runs guests until all have ended. The thread with the first slot stays to the end;
    /// helpers leave when another task waits for a slot.
    pub(crate) fn work<'scope>(
        self: &'scope Arc<Self>,
        scope: &'scope Scope<'scope, '_>,
        slots: &'scope Arc<Slots>,
        slot: Slot,
        is_first: bool,
    ) {
        let mut locked = self.round();
        while locked.running > 0 {
            let round = &mut *locked;
            let Some((rank, mut future)) = round.ready.pop_front() else {
                let patience = if is_first { POLL_INTERVAL } else { HELPER_PATIENCE };
                let waited = self.changed.wait_timeout(locked, patience);
                let (again, waited) = waited.unwrap_or_else(PoisonError::into_inner);
                locked = again;
                if waited.timed_out() && !is_first {
                    break;
                }
                if waited.timed_out() {
                    // Each guest checks its limits.
                    let round = &mut *locked;
                    round.ready.extend(round.waiting.drain(..));
                }
                continue;
            };
            if !round.ready.is_empty()
                && let Some(slot) = slots.try_take()
            {
                let help = move || self.work(scope, slots, slot, false);
                // Without another thread it only takes longer.
                let _ = std::thread::Builder::new().name("guests".to_owned()).spawn_scoped(scope, help);
            }
            let number = round.number;
            drop(locked);
            let started = thread_cpu_us();
            // A panic of the host must not leave the others waiting.
            let polled =
                catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut Context::from_waker(Waker::noop()))));
            let used = thread_cpu_us().saturating_sub(started);
            locked = self.round();
            let round = &mut *locked;
            round.cpu_us += used;
            match polled {
                // The round may have ended since the guest checked.
                Ok(Poll::Pending) if round.number != number || round.broken.is_some() => {
                    round.ready.push_back((rank, future));
                }
                Ok(Poll::Pending) => round.waiting.push((rank, future)),
                Ok(Poll::Ready(outcome)) => round.finish(rank, outcome),
                Err(_) => {
                    let message = "the host panicked: please report this".to_owned();
                    round.finish(rank, TaskOutcome::failed(Failure::Host { message }));
                }
            }
            if round.running == 0 || !round.ready.is_empty() {
                self.changed.notify_all();
            }
            if !is_first && slots.is_wanted() {
                break;
            }
        }
        drop(locked);
        drop(slot);
    }
}

/// How long a helper waits for a guest that can continue.
const HELPER_PATIENCE: Duration = Duration::from_millis(5);

/// The rank of a guest in a collective.
pub(crate) struct Rank {
    pub(crate) collective: Arc<Collective>,
    pub(crate) number: usize,
}

impl Rank {
    /// Whether the guest should continue. Of several failures that of the lowest rank is
    /// reported, so guests of lower ranks than a failed one run until they would have to wait.
    ///
    /// # Errors
    /// The reason to stop.
    pub(crate) fn check(&self) -> wasmtime::Result<()> {
        match &self.collective.round().broken {
            Some(Broken::Failed(other)) if self.number < *other => Ok(()),
            Some(broken) => Err(broken.error()),
            None => Ok(()),
        }
    }

    /// Contributes numbers and waits for the result of the round.
    ///
    /// # Errors
    /// The reason to stop.
    pub(crate) async fn all_reduce(
        &self,
        how: Reduction,
        values: Vec<f64>,
        used: u64,
        check: impl Fn() -> Result<(), Stop>,
    ) -> wasmtime::Result<Arc<[f64]>> {
        let number = self.collective.arrive(self.number, how, values, used)?;
        poll_fn(|_| match check() {
            Ok(()) => self.collective.result(self.number, number),
            Err(stop) => Poll::Ready(Err(wasmtime::Error::new(stop))),
        })
        .await
    }
}

/// The error of a guest that is not part of a collective.
pub(crate) fn not_collective() -> wasmtime::Error {
    let message = "it asked for the numbers of other guests outside of `rounds`";
    wasmtime::Error::new(EmitError::Misuse(message.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(how: Reduction, all: &[&[f64]], rank: usize) -> Vec<f64> {
        how.combine(&all.iter().map(|values| values.to_vec()).collect::<Vec<_>>()).take(rank).to_vec()
    }

    #[test]
    fn numbers_are_combined_in_the_order_of_ranks() {
        let all: [&[f64]; 3] = [&[1e100, 1.0], &[1.0, -2.0], &[-1e100, 5.0]];
        assert_eq!(of(Reduction::Sum, &all, 0), [0.0, 4.0]);
        assert_eq!(of(Reduction::Min, &all, 1), [-1e100, -2.0]);
        assert_eq!(of(Reduction::Max, &all, 2), [1e100, 5.0]);
        assert_eq!(of(Reduction::ExclusiveScan, &all, 0), [0.0, 0.0]);
        assert_eq!(of(Reduction::ExclusiveScan, &all, 2), [1e100, -1.0]);
        assert_eq!(of(Reduction::Sum, &[&[7.5]], 0), [7.5]);
        assert!(of(Reduction::Sum, &[], 0).is_empty());
    }

    #[test]
    fn any_nan_becomes_the_canonical_nan() {
        let odd = f64::from_bits(0xfff8_0000_0000_1234);
        for how in [Reduction::Sum, Reduction::Min, Reduction::Max, Reduction::ExclusiveScan] {
            for all in [[&[odd][..], &[1.0], &[2.0]], [&[1.0][..], &[odd], &[2.0]]] {
                assert_eq!(of(how, &all, 2)[0].to_bits(), f64::NAN.to_bits(), "{how:?}");
            }
        }
        assert_eq!(of(Reduction::Max, &[&[odd]], 0)[0].to_bits(), f64::NAN.to_bits());
    }
}
