//! A task in several guests, each with some of the parts, that meet to make one of their
//! numbers and come to the same end.
//!
//! How many guests there are, and which parts each has, follows from the parts and their
//! rows alone. A guest sees its parts and what all of them made of their numbers in the order
//! of parts, so nothing that it sees tells of the machine, of how many guests
//! compute at a time, or of who was first.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::Scope;
use std::time::{Duration, Instant};

use millrace_types::action_key::WORLD_VERSION;
use millrace_types::{Cost, Fuel, Limits, OutputRecord, PortName, bounds};
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};

use crate::component::{Component, cpu_us};
use crate::engine::Cancel;
use crate::limits::Stop;
use crate::outcome::{Failure, TaskOutcome};
use crate::output::EmitError;
use crate::rewrite::Looks;
use crate::slots::{LOOK, Slot, Slots};
use crate::task::{Data, InputItem, TablePart, TaskSpec, TaskState};
use crate::world::{TaskRep, WitReduction};

/// Guests of a task at most; where there are more parts, a guest has several. Results
/// depend on it, by how sums are rounded, as on the next: who changes one of them changes
/// `KEY_VERSION`.
pub(crate) const GUESTS: usize = 32;

/// Rows for a guest at least, where there are several: with fewer it costs more than it
/// saves.
const ROWS: u64 = 32_768;

/// How numbers become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reduction {
    Sum,
    Min,
    Max,
    Before,
}

impl Reduction {
    fn as_str(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Min => "min",
            Self::Max => "max",
            Self::Before => "before",
        }
    }

    fn one(self, a: f64, b: f64) -> f64 {
        let made = match self {
            Self::Sum | Self::Before => a + b,
            Self::Min if b < a || b.is_nan() => b,
            Self::Max if b > a || b.is_nan() => b,
            Self::Min | Self::Max => a,
        };
        // The one form of NaN that guests have too.
        if made.is_nan() { f64::NAN } else { made }
    }

    /// What each guest is given, in the order of guests.
    fn of(self, all: &[Vec<f64>]) -> Made {
        let add = |made: &mut Vec<f64>, more: &Vec<f64>| {
            made.iter_mut().zip(more).for_each(|(a, b)| *a = self.one(*a, *b));
        };
        if self == Self::Before {
            let mut before = vec![0.0; all.first().map_or(0, Vec::len)];
            let step = |values: &Vec<f64>| {
                let mut next = before.clone();
                add(&mut next, values);
                Arc::from(std::mem::replace(&mut before, next))
            };
            return Made::Each(all.iter().map(step).collect());
        }
        let mut rest = all.iter();
        let mut made = rest.next().cloned().unwrap_or_default();
        made.iter_mut().filter(|value| value.is_nan()).for_each(|value| *value = f64::NAN);
        rest.for_each(|values| add(&mut made, values));
        Made::Same(made.into())
    }
}

/// What came of a round. Nobody asks twice.
enum Made {
    Same(Arc<[f64]>),
    Each(Vec<Arc<[f64]>>),
}

impl Made {
    fn of(&mut self, guest: usize) -> Arc<[f64]> {
        match self {
            Self::Same(all) => all.clone(),
            Self::Each(each) => std::mem::take(&mut each[guest]),
        }
    }
}

/// Why there will be no further round.
enum Broken {
    /// They broke the rules.
    Misuse(String),
    /// All of them together used too much.
    Fuel,
    /// This one failed by itself.
    Left(usize),
}

impl Broken {
    fn error(&self) -> wasmtime::Error {
        match self {
            Self::Misuse(message) => wasmtime::Error::new(EmitError::Misuse(message.clone())),
            Self::Fuel => wasmtime::Error::new(Stop::Fuel),
            Self::Left(_) => wasmtime::Error::new(Stop::Left),
        }
    }

    fn ended() -> Self {
        Self::Misuse("its guests do not agree: one ended while another waited for its numbers".to_owned())
    }
}

/// A guest that runs until it has to wait for others.
type Guest = Pin<Box<dyn Future<Output = TaskOutcome> + Send>>;

struct Round {
    number: u64,
    /// What the first to come asked for.
    asked: Option<(Reduction, usize)>,
    /// By guest; all of them when the last has come.
    values: Vec<Vec<f64>>,
    arrived: usize,
    /// Of the round before. Nobody comes to the next one without having taken it.
    made: Made,
    /// Fuel by guest.
    used: Vec<u64>,
    broken: Option<Broken>,
    /// Guests that can go on.
    ready: VecDeque<(usize, Guest)>,
    /// Guests that wait for others.
    waiting: Vec<(usize, Guest)>,
    ended: Vec<Option<TaskOutcome>>,
    left: usize,
    cpu_us: u64,
}

impl Round {
    /// The last words: whoever waits is told.
    fn end(&mut self, broken: Broken) -> wasmtime::Error {
        self.ready.extend(self.waiting.drain(..));
        match (&mut self.broken, broken) {
            (Some(Broken::Left(known)), Broken::Left(guest)) => *known = guest.min(*known),
            (Some(_), _) => {}
            (none, broken) => *none = Some(broken),
        }
        self.broken.as_ref().map_or_else(|| wasmtime::Error::new(Stop::Left), Broken::error)
    }

    /// Fuel of all guests so far.
    fn used(&self) -> u64 {
        self.used.iter().fold(0, |all, used| all.saturating_add(*used))
    }

    fn leave(&mut self, guest: usize, outcome: TaskOutcome) {
        let well = outcome.result.is_ok();
        self.ended[guest] = Some(outcome);
        self.left -= 1;
        if !well {
            self.end(Broken::Left(guest));
        } else if self.arrived > 0 {
            self.end(Broken::ended());
        }
    }
}

/// Where the guests of a task meet, and those who compute find one that can go on.
pub(crate) struct Meeting {
    fuel: Fuel,
    /// Of all guests: that of the task.
    pub(crate) deadline: Option<Instant>,
    /// Memory of all guests together.
    pub(crate) memory: AtomicU64,
    /// One of them has to begin again where it can be stopped, and so have all.
    pub(crate) is_lost: AtomicBool,
    round: Mutex<Round>,
    changed: Condvar,
}

impl Meeting {
    fn new(guests: usize, limits: &Limits, deadline: Option<Instant>) -> Self {
        let round = Round {
            number: 0,
            asked: None,
            values: vec![Vec::new(); guests],
            arrived: 0,
            made: Made::Same(Arc::default()),
            used: vec![0; guests],
            broken: None,
            ready: VecDeque::new(),
            waiting: Vec::new(),
            ended: vec![None; guests],
            left: guests,
            cpu_us: 0,
        };
        let (memory, is_lost) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { fuel: limits.fuel, deadline, memory, is_lost, round: Mutex::new(round), changed: Condvar::new() }
    }

    fn round(&self) -> MutexGuard<'_, Round> {
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings the numbers of a guest; gives the round that they belong to. `used` is the
    /// fuel of the guest so far.
    fn arrive(&self, guest: usize, how: Reduction, values: Vec<f64>, used: u64) -> wasmtime::Result<u64> {
        let mut locked = self.round();
        let round = &mut *locked;
        if let Some(broken) = &round.broken {
            return Err(broken.error());
        }
        if round.ended.iter().any(Option::is_some) {
            return Err(round.end(Broken::ended()));
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
            return Err(round.end(Broken::Misuse(message)));
        }
        round.values[guest] = values;
        round.used[guest] = used;
        round.arrived += 1;
        let number = round.number;
        if round.arrived == round.values.len() {
            if round.used() > self.fuel.0 {
                return Err(round.end(Broken::Fuel));
            }
            round.made = how.of(&round.values);
            round.values.iter_mut().for_each(|values| *values = Vec::new());
            (round.number, round.asked, round.arrived) = (number + 1, None, 0);
            round.ready.extend(round.waiting.drain(..));
            self.changed.notify_all();
        }
        Ok(number)
    }

    /// What a guest is given at the end of a round.
    fn made(&self, guest: usize, number: u64) -> Poll<wasmtime::Result<Arc<[f64]>>> {
        let mut round = self.round();
        match &round.broken {
            _ if round.number > number => Poll::Ready(Ok(round.made.of(guest))),
            Some(broken) => Poll::Ready(Err(broken.error())),
            None => Poll::Pending,
        }
    }

    /// Lets guests go on until all have ended. Whoever comes with the first slot stays to
    /// the end; others help as long as there are slots that nobody else wants.
    fn work<'scope>(
        self: &'scope Arc<Self>,
        scope: &'scope Scope<'scope, '_>,
        slots: &'scope Arc<Slots>,
        slot: Slot,
        is_first: bool,
    ) {
        let mut locked = self.round();
        while locked.left > 0 {
            let round = &mut *locked;
            let Some((guest, mut future)) = round.ready.pop_front() else {
                let patience = if is_first { LOOK } else { SOON };
                let waited = self.changed.wait_timeout(locked, patience);
                let (again, waited) = waited.unwrap_or_else(PoisonError::into_inner);
                locked = again;
                if waited.timed_out() && !is_first {
                    break;
                }
                if waited.timed_out() {
                    // They look whether they should stop.
                    let round = &mut *locked;
                    round.ready.extend(round.waiting.drain(..));
                }
                continue;
            };
            if !round.ready.is_empty()
                && let Some(slot) = slots.try_take()
            {
                let help = move || self.work(scope, slots, slot, false);
                // Without a thread more it takes longer, that is all.
                let _ = std::thread::Builder::new().name("guests".to_owned()).spawn_scoped(scope, help);
            }
            let number = round.number;
            drop(locked);
            let started = cpu_us();
            // A bug of ours must not leave the others waiting.
            let polled =
                catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut Context::from_waker(Waker::noop()))));
            let used = cpu_us().saturating_sub(started);
            locked = self.round();
            let round = &mut *locked;
            round.cpu_us += used;
            match polled {
                // Since it looked the others may have come.
                Ok(Poll::Pending) if round.number != number || round.broken.is_some() => {
                    round.ready.push_back((guest, future));
                }
                Ok(Poll::Pending) => round.waiting.push((guest, future)),
                Ok(Poll::Ready(outcome)) => round.leave(guest, outcome),
                Err(_) => {
                    let message = "the host panicked: please report this".to_owned();
                    round.leave(guest, TaskOutcome::failed(Failure::Host { message }));
                }
            }
            if round.left == 0 || !round.ready.is_empty() {
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

/// How long a helper waits for a guest that can go on.
const SOON: Duration = Duration::from_millis(5);

/// What a guest of a task in rounds holds.
pub(crate) struct Seat {
    pub(crate) meeting: Arc<Meeting>,
    pub(crate) guest: usize,
}

impl Seat {
    /// Looks, now and then, whether there is still something to do it for. Of several that
    /// fail by themselves the first is told of, so guests before one that failed go on
    /// until they would have to wait.
    pub(crate) fn goes_on(&self) -> wasmtime::Result<()> {
        match &self.meeting.round().broken {
            Some(Broken::Left(other)) if self.guest < *other => Ok(()),
            Some(broken) => Err(broken.error()),
            None => Ok(()),
        }
    }
}

/// Defines `all-reduce` once more, for guests that wait without keeping a thread.
pub(crate) fn link(linker: &mut Linker<TaskState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut host = linker.instance(&format!("millrace:step/host@{WORLD_VERSION}"))?;
    host.func_wrap_async(
        "[method]task.all-reduce",
        |cx: StoreContextMut<'_, TaskState>, (_, how, values): (Resource<TaskRep>, WitReduction, Vec<f64>)| {
            Box::new(async move {
                let limiter = &cx.data().limiter;
                let Some(Seat { meeting, guest }) = &limiter.seat else { return Err(alone()) };
                let number = meeting.arrive(*guest, how.into(), values, limiter.fuel_used)?;
                let made = poll_fn(|_| match limiter.check() {
                    Ok(()) => meeting.made(*guest, number),
                    Err(stop) => Poll::Ready(Err(wasmtime::Error::new(stop))),
                });
                Ok((made.await?.to_vec(),))
            })
        },
    )
}

/// Of a guest that has nobody to meet.
pub(crate) fn alone() -> wasmtime::Error {
    let message = "it asked for the numbers of other guests outside of `rounds`";
    wasmtime::Error::new(EmitError::Misuse(message.to_owned()))
}

/// Parts of the mapped port, from and to, for one of so many guests.
fn share_of(guest: usize, guests: usize, parts: usize) -> Range<usize> {
    guest * parts / guests..(guest + 1) * parts / guests
}

/// What each guest is given: so many parts of the mapped port, in their order.
fn share(spec: TaskSpec) -> Vec<TaskSpec> {
    let Some((place, parts)) = mapped_parts(&spec).map(|(place, parts)| (place, parts.to_vec())) else {
        return vec![spec];
    };
    let rows: u64 = parts.iter().map(|part| part.rows).sum();
    let guests = usize::try_from(rows.div_ceil(ROWS)).unwrap_or(GUESTS).min(parts.len()).clamp(1, GUESTS);
    let one = |guest: usize| {
        let mut spec = spec.clone();
        if let Some(InputItem::Table { parts: own, .. }) = spec.inputs[place].items.first_mut() {
            *own = parts[share_of(guest, guests, parts.len())].to_vec();
        }
        if guest > 0 {
            spec.progress = None;
        }
        spec
    };
    (0..guests).map(one).collect()
}

/// The mapped port among the inputs, and its parts.
fn mapped_parts(spec: &TaskSpec) -> Option<(usize, &[TablePart])> {
    let place = spec.inputs.iter().position(|input| spec.mapped.as_ref() == Some(&input.port))?;
    match spec.inputs[place].items.first() {
        Some(InputItem::Table { parts, .. }) => Some((place, parts)),
        _ => None,
    }
}

/// Runs the guests of a task to their end.
pub(crate) fn run(
    component: &Component,
    spec: TaskSpec,
    data: &Arc<dyn Data>,
    cancel: &Cancel,
    slot: Slot,
) -> TaskOutcome {
    let limits = spec.limits;
    let parts = mapped_parts(&spec).map_or(1, |(_, parts)| parts.len());
    let specs = share(spec);
    // Nobody who waits for seats keeps others from computing.
    let slots = slot.give_back();
    let goes_on = || if cancel.is_cancelled() { Err(Failure::Cancelled) } else { Ok(()) };
    let _seats = match component.engine().seats.take_many(specs.len(), goes_on) {
        Ok(seats) => seats,
        Err(failure) => return TaskOutcome::failed(failure),
    };
    // Whatever it waited for is nothing that it took.
    let (mut slot, mut began) = (slots.take(), Instant::now());
    let mut deadline = began.checked_add(limits.time);
    let (mut wall, mut cpu_us, mut looks) = (Duration::ZERO, 0, Looks::AtCalls);
    loop {
        let asked = Instant::now();
        let code = match component.in_rounds(looks) {
            Ok(code) => code,
            Err(error) => return TaskOutcome::failed(Failure::Host { message: format!("{error:#}") }),
        };
        // That something is compiled is no matter of the task.
        deadline = deadline.and_then(|deadline| deadline.checked_add(asked.elapsed()));
        let meeting = Arc::new(Meeting::new(specs.len(), &limits, deadline));
        let guest = |(guest, spec): (usize, &TaskSpec)| -> (usize, Guest) {
            let seat = Seat { meeting: meeting.clone(), guest };
            let (component, code, spec) = (component.clone(), code.clone(), spec.clone());
            let (data, cancel) = (data.clone(), cancel.clone());
            (guest, Box::pin(async move { component.run_guest(&code, looks, spec, data, &cancel, seat).await }))
        };
        meeting.round().ready = specs.iter().enumerate().map(guest).collect();
        std::thread::scope(|scope| meeting.work(scope, &slots, slot, true));
        let mut round = meeting.round();
        wall += began.elapsed();
        cpu_us += round.cpu_us;
        if looks == Looks::AtCalls && meeting.is_lost.load(Ordering::Relaxed) {
            looks = Looks::Everywhere;
            (slot, began) = (slots.take(), Instant::now());
            continue;
        }
        let mut outcome = together(round.ended.drain(..).flatten().collect(), limits.fuel, parts);
        outcome.cost.cpu_us = cpu_us;
        outcome.cost.wall_us = wall.as_micros() as u64;
        return outcome;
    }
}

/// What the guests of a task came to, as one.
fn together(outcomes: Vec<TaskOutcome>, fuel: Fuel, parts: usize) -> TaskOutcome {
    let mut cost = Cost::default();
    let mut log = Vec::new();
    for outcome in &outcomes {
        let Cost { fuel, peak_memory_bytes, bytes_read, .. } = outcome.cost;
        cost.fuel = cost.fuel.saturating_add(fuel);
        cost.peak_memory_bytes += peak_memory_bytes;
        cost.bytes_read += bytes_read;
        // What several of them say is said once.
        let mut said = log.clone();
        for line in &outcome.log {
            match said.iter().position(|other| other == line) {
                Some(place) => drop(said.swap_remove(place)),
                None if log.len() < bounds::LOG_LINES => log.push(line.clone()),
                None => {}
            }
        }
    }
    cost.bytes_written = outcomes.first().map_or(0, |outcome| outcome.cost.bytes_written);
    let failures = || outcomes.iter().enumerate().filter_map(|(i, outcome)| Some((i, outcome.result.as_ref().err()?)));
    // Who was stopped since another failed has nothing to say.
    let failure = failures().find(|(_, failure)| **failure != Failure::Cancelled).or_else(|| failures().next());
    let many = outcomes.len();
    if let Some((guest, failure)) = failure {
        let mut failure = failure.clone();
        if let Failure::Step { message, row: Some(_), .. } = &mut failure
            && parts > 1
        {
            let share = share_of(guest, many, parts);
            let text = match share.len() {
                1 => format!(", in part {}", share.start),
                _ => format!(", in one of the parts {} to {}", share.start, share.end - 1),
            };
            message.push_str(&text);
        }
        return TaskOutcome { result: Err(failure), metrics: Vec::new(), log, cost };
    }
    let mut outcomes = outcomes.into_iter();
    let Some(TaskOutcome { mut result, metrics, .. }) = outcomes.next() else {
        return TaskOutcome::failed(Failure::Host { message: "a task without a guest: please report this".to_owned() });
    };
    // What a guest leaves to the first is the first one's; what it has must be the same.
    let agrees = |other: TaskOutcome| {
        let known = |found: &(PortName, OutputRecord)| result.as_ref().is_ok_and(|first| first.outputs.contains(found));
        other.result.is_ok_and(|other| other.outputs.iter().all(known)) && other.metrics == metrics
    };
    if !outcomes.all(agrees) {
        let message = "its guests do not agree: they came to different blobs or metrics";
        result = Err(Failure::Misuse { message: message.to_owned() });
    } else if cost.fuel > fuel.0 {
        result = Err(Failure::Fuel { limit: fuel, backtrace: Vec::new() });
    }
    TaskOutcome { result, metrics, log, cost }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(how: Reduction, all: &[&[f64]], guest: usize) -> Vec<f64> {
        how.of(&all.iter().map(|values| values.to_vec()).collect::<Vec<_>>()).of(guest).to_vec()
    }

    #[test]
    fn numbers_become_one_in_the_order_of_guests() {
        let all: [&[f64]; 3] = [&[1e100, 1.0], &[1.0, -2.0], &[-1e100, 5.0]];
        assert_eq!(of(Reduction::Sum, &all, 0), [0.0, 4.0]);
        assert_eq!(of(Reduction::Min, &all, 1), [-1e100, -2.0]);
        assert_eq!(of(Reduction::Max, &all, 2), [1e100, 5.0]);
        assert_eq!(of(Reduction::Before, &all, 0), [0.0, 0.0]);
        assert_eq!(of(Reduction::Before, &all, 2), [1e100, -1.0]);
        assert_eq!(of(Reduction::Sum, &[&[7.5]], 0), [7.5]);
        assert!(of(Reduction::Sum, &[], 0).is_empty());
    }

    #[test]
    fn a_nan_anywhere_is_the_one_nan() {
        let odd = f64::from_bits(0xfff8_0000_0000_1234);
        for how in [Reduction::Sum, Reduction::Min, Reduction::Max, Reduction::Before] {
            for all in [[&[odd][..], &[1.0], &[2.0]], [&[1.0][..], &[odd], &[2.0]]] {
                assert_eq!(of(how, &all, 2)[0].to_bits(), f64::NAN.to_bits(), "{how:?}");
            }
        }
        assert_eq!(of(Reduction::Max, &[&[odd]], 0)[0].to_bits(), f64::NAN.to_bits());
    }
}
