//! The choice of the task that runs next. Pure: no IO, no threads, no clock, and independent of
//! what a task does.
//!
//! A task waits here until it fits the memory of the run. Tasks with one key are computed
//! once: the first one runs, and [`Schedule::finish`] returns all of them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use millrace_types::ActionKey;

/// The number of a task of a run.
pub(super) type TaskId = usize;

/// The order of tasks: the greatest runs first. These are tasks on all parts, which others wait
/// for; then part by part, so that the columns that one step read are still in a cache for the
/// next; and within a part the tasks with the longest chain after them, then the oldest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Urgency {
    on_all_parts: bool,
    part: Reverse<Option<usize>>,
    rank: u32,
    task: Reverse<TaskId>,
}

impl Urgency {
    /// The urgency of a task on one part, or on all parts, of a node of this rank.
    pub(super) fn new(part: Option<usize>, rank: u32, task: TaskId) -> Self {
        Self { on_all_parts: part.is_none(), part: Reverse(part), rank, task: Reverse(task) }
    }

    fn task(&self) -> TaskId {
        self.task.0
    }
}

/// A task that has to be computed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) key: ActionKey,
    pub(super) urgency: Urgency,
    /// The memory that it may use, in bytes.
    pub(super) memory: u64,
}

/// A task that was started.
#[derive(Debug)]
struct Running {
    key: ActionKey,
    memory: u64,
}

/// The tasks that wait, and those that run.
#[derive(Debug)]
pub(super) struct Schedule {
    /// Bytes that running tasks may use together.
    limit: u64,
    ready: BTreeSet<Urgency>,
    /// Key and memory of the ready tasks.
    waiting: HashMap<TaskId, Running>,
    running: BTreeMap<TaskId, Running>,
    /// The tasks of each key, ready or running; the first one is computed.
    by_key: HashMap<ActionKey, Vec<TaskId>>,
    /// Bytes of the running tasks.
    memory: u64,
}

impl Schedule {
    /// An empty schedule for tasks that may use `limit` bytes together.
    pub(super) fn new(limit: u64) -> Self {
        Self {
            limit,
            ready: BTreeSet::new(),
            waiting: HashMap::new(),
            running: BTreeMap::new(),
            by_key: HashMap::new(),
            memory: 0,
        }
    }

    /// Adds a task. If another with its key is ready or running, it waits for that one.
    pub(super) fn add(&mut self, candidate: Candidate) {
        let Candidate { key, urgency, memory } = candidate;
        let same = self.by_key.entry(key).or_default();
        same.push(urgency.task());
        if same.len() == 1 {
            self.ready.insert(urgency);
            self.waiting.insert(urgency.task(), Running { key, memory: memory.min(self.limit) });
        }
    }

    /// Starts the most urgent ready task that fits, if it is more urgent than `above`. A task that
    /// exceeds the free memory starts if no other runs.
    pub(super) fn next(&mut self, above: Option<Urgency>) -> Option<TaskId> {
        let fits = |urgency: &&Urgency| {
            let memory = self.waiting.get(&urgency.task()).map_or(0, |task| task.memory);
            self.running.is_empty() || self.memory.saturating_add(memory) <= self.limit
        };
        let urgency = *self.ready.iter().rev().find(fits)?;
        if above.is_some_and(|above| urgency < above) {
            return None;
        }
        self.ready.remove(&urgency);
        let task = self.waiting.remove(&urgency.task())?;
        self.memory += task.memory;
        self.running.insert(urgency.task(), task);
        Some(urgency.task())
    }

    /// Ends a running task. Returns all tasks with its key, itself first.
    pub(super) fn finish(&mut self, task: TaskId) -> Vec<TaskId> {
        let Some(Running { key, memory }) = self.running.remove(&task) else { return Vec::new() };
        self.memory -= memory;
        self.by_key.remove(&key).unwrap_or_else(|| vec![task])
    }

    /// Removes all tasks that were not started, and those with their keys.
    pub(super) fn drain(&mut self) -> Vec<TaskId> {
        let mut drained = Vec::new();
        for urgency in std::mem::take(&mut self.ready) {
            let Some(Running { key, .. }) = self.waiting.remove(&urgency.task()) else { continue };
            drained.extend(self.by_key.remove(&key).unwrap_or_default());
        }
        drained
    }

    /// The memory that a running task may use, in bytes.
    pub(super) fn memory_of(&self, task: TaskId) -> Option<u64> {
        self.running.get(&task).map(|task| task.memory)
    }

    /// Whether tasks wait to be started.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether no task runs.
    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A schedule that checks every task each time.
    #[derive(Default)]
    struct Naive {
        limit: u64,
        tasks: Vec<(Candidate, State)>,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum State {
        Waits,
        Runs,
        Ended,
    }

    impl Naive {
        fn in_state(&self, state: State) -> impl Iterator<Item = (TaskId, &Candidate)> {
            let tasks = self.tasks.iter().enumerate();
            tasks.filter(move |(_, (_, known))| *known == state).map(|(id, (candidate, _))| (id, candidate))
        }

        fn memory(&self, candidate: &Candidate) -> u64 {
            candidate.memory.min(self.limit)
        }

        /// A waiting task that is the first with its key.
        fn is_ready(&self, id: TaskId) -> bool {
            let key = self.tasks[id].0.key;
            let runs = self.in_state(State::Runs).any(|(_, other)| other.key == key);
            !runs
                && self.in_state(State::Waits).find(|(_, other)| other.key == key).is_some_and(|(first, _)| first == id)
        }

        fn next(&mut self, above: Option<Urgency>) -> Option<TaskId> {
            let used: u64 = self.in_state(State::Runs).map(|(_, task)| self.memory(task)).sum();
            let alone = self.in_state(State::Runs).next().is_none();
            let fits = |task: &Candidate| alone || used + self.memory(task) <= self.limit;
            let ready = self.in_state(State::Waits).filter(|(id, task)| self.is_ready(*id) && fits(task));
            let (id, best) = ready.max_by_key(|(_, task)| task.urgency)?;
            if above.is_some_and(|above| best.urgency < above) {
                return None;
            }
            self.tasks[id].1 = State::Runs;
            Some(id)
        }

        /// Ends tasks: these, and those that wait with their keys.
        fn end(&mut self, ids: &[TaskId]) -> Vec<TaskId> {
            let mut ended = Vec::new();
            for id in ids {
                let key = self.tasks[*id].0.key;
                for (other, (task, state)) in self.tasks.iter_mut().enumerate() {
                    if task.key == key && (other == *id || *state == State::Waits) {
                        *state = State::Ended;
                        ended.push(other);
                    }
                }
            }
            ended
        }

        fn drain(&mut self) -> Vec<TaskId> {
            let ready: Vec<TaskId> =
                self.in_state(State::Waits).map(|(id, _)| id).filter(|id| self.is_ready(*id)).collect();
            self.end(&ready)
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Add {
            key: u8,
            part: Option<usize>,
            rank: u32,
            memory: u64,
        },
        Next,
        /// Takes the next task only if it is more urgent than this one.
        NextAbove {
            part: Option<usize>,
            rank: u32,
        },
        /// Ends one of the running tasks.
        Finish(prop::sample::Index),
        Drain,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let part = || prop::option::of(0usize..4);
        let step = prop_oneof![
            6 => (0u8..12, part(), 0u32..3, 0u64..150)
                .prop_map(|(key, part, rank, memory)| Step::Add { key, part, rank, memory }),
            5 => Just(Step::Next),
            1 => (part(), 0u32..3).prop_map(|(part, rank)| Step::NextAbove { part, rank }),
            4 => any::<prop::sample::Index>().prop_map(Step::Finish),
            1 => Just(Step::Drain),
        ];
        prop::collection::vec(step, 0..80)
    }

    fn sorted(mut ids: Vec<TaskId>) -> Vec<TaskId> {
        ids.sort_unstable();
        ids
    }

    proptest! {
        #[test]
        fn the_schedule_decides_like_the_naive_model(steps in steps()) {
            let limit = 100;
            let (mut schedule, mut naive) = (Schedule::new(limit), Naive { limit, ..Naive::default() });
            for step in steps {
                match step {
                    Step::Add { key, part, rank, memory } => {
                        let urgency = Urgency::new(part, rank, naive.tasks.len());
                        let candidate = Candidate { key: ActionKey::from_bytes([key; 32]), urgency, memory };
                        schedule.add(candidate);
                        naive.tasks.push((candidate, State::Waits));
                    }
                    Step::Next => prop_assert_eq!(schedule.next(None), naive.next(None)),
                    Step::NextAbove { part, rank } => {
                        let above = Some(Urgency::new(part, rank, usize::MAX));
                        prop_assert_eq!(schedule.next(above), naive.next(above));
                    }
                    Step::Finish(index) => {
                        let running: Vec<TaskId> = naive.in_state(State::Runs).map(|(id, _)| id).collect();
                        if !running.is_empty() {
                            let task = *index.get(&running);
                            let ended = schedule.finish(task);
                            prop_assert_eq!(ended.first(), Some(&task), "the task itself comes first");
                            prop_assert_eq!(sorted(ended), naive.end(&[task]));
                        }
                    }
                    Step::Drain => prop_assert_eq!(sorted(schedule.drain()), sorted(naive.drain())),
                }
                prop_assert_eq!(schedule.is_idle(), naive.in_state(State::Runs).next().is_none());
                let ready = naive.in_state(State::Waits).any(|(id, _)| naive.is_ready(id));
                prop_assert_eq!(schedule.has_ready(), ready);
                let used: u64 = schedule.running.values().map(|task| task.memory).sum();
                prop_assert!(used <= limit || schedule.running.len() == 1);
            }
        }
    }

    #[test]
    fn tasks_on_all_parts_come_first_then_early_parts_then_long_chains() {
        let mut order = [
            Urgency::new(Some(1), 9, 0),
            Urgency::new(Some(0), 1, 1),
            Urgency::new(Some(0), 2, 2),
            Urgency::new(None, 0, 3),
            Urgency::new(Some(0), 2, 4),
        ];
        order.sort_unstable_by(|a, b| b.cmp(a));
        assert_eq!(order.map(|urgency| urgency.task()), [3, 2, 4, 1, 0]);
    }
}
