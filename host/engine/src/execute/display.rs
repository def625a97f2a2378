//! Events on their way to the renderer.
//!
//! Rendering takes time, and a full pipe can block it for ever. So the worker that schedules
//! only queues events, and afterwards one free worker renders them for all; no other worker
//! waits for it. This module knows nothing of what an event says.

use std::sync::atomic::{Ordering, fence};
use std::sync::{Mutex, PoisonError};

use crossbeam_queue::SegQueue;

use crate::event::{Event, EventEnvelope, RunClock};

/// Takes events with their times.
pub(super) type Sink<'a> = &'a mut (dyn FnMut(EventEnvelope) + Send);

/// Adds the time to events, and passes them on.
pub(super) struct Emit<'a> {
    clock: RunClock,
    target: Target<'a>,
}

enum Target<'a> {
    /// The renderer, at once.
    Renderer(Sink<'a>),
    /// Collected for the caller, to be sent later.
    Collected(Vec<EventEnvelope>),
}

impl<'a> Emit<'a> {
    /// Sends every event to the renderer at once.
    pub(super) fn now(clock: RunClock, render: Sink<'a>) -> Self {
        Self { clock, target: Target::Renderer(render) }
    }

    /// Replaces `self` by a value that collects events until they are taken.
    pub(super) fn collect(&mut self) -> Self {
        let target = std::mem::replace(&mut self.target, Target::Collected(Vec::new()));
        Self { clock: self.clock, target }
    }

    /// Sends or collects an event that happens now.
    pub(super) fn send(&mut self, event: Event) {
        self.pass(self.clock.now(event));
    }

    /// Sends or collects an event that has its time.
    pub(super) fn pass(&mut self, envelope: EventEnvelope) {
        match &mut self.target {
            Target::Renderer(render) => render(envelope),
            Target::Collected(events) => events.push(envelope),
        }
    }

    /// Takes the collected events.
    pub(super) fn take(&mut self) -> Vec<EventEnvelope> {
        match &mut self.target {
            Target::Renderer(_) => Vec::new(),
            Target::Collected(events) => std::mem::take(events),
        }
    }
}

/// A queue of events in the order in which things happened, and the renderer.
pub(super) struct Display<'a> {
    queue: SegQueue<EventEnvelope>,
    clock: RunClock,
    renderer: Mutex<Emit<'a>>,
}

impl<'a> Display<'a> {
    pub(super) fn new(renderer: Emit<'a>) -> Self {
        Self { queue: SegQueue::new(), clock: renderer.clock, renderer: Mutex::new(renderer) }
    }

    /// Queues events with their times.
    pub(super) fn put(&self, events: impl IntoIterator<Item = EventEnvelope>) {
        events.into_iter().for_each(|event| self.queue.push(event));
    }

    /// Queues an event that happens now.
    pub(super) fn put_now(&self, event: Event) {
        self.queue.push(self.clock.now(event));
    }

    /// Renders the queue, unless another thread is rendering, which then renders all of it.
    pub(super) fn render(&self) {
        loop {
            // A thread that queues checks the lock afterwards, and a thread that has rendered
            // checks the queue: one of them sees the other.
            fence(Ordering::SeqCst);
            if self.queue.is_empty() {
                return;
            }
            let Ok(mut renderer) = self.renderer.try_lock() else { return };
            while let Some(event) = self.queue.pop() {
                renderer.pass(event);
            }
        }
    }

    pub(super) fn into_emit(self) -> Emit<'a> {
        self.renderer.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    /// A thread that comes while another renders goes on at once, and the other renders what
    /// it has queued.
    #[test]
    fn no_thread_waits_for_the_one_that_renders() {
        let (showing, shown) = channel();
        let (go_on, held) = channel::<()>();
        let mut render = move |envelope: EventEnvelope| {
            let Event::TasksPlanned { tasks, .. } = envelope.event else { panic!("only such events are sent") };
            let _ = showing.send(tasks);
            let _ = held.recv();
        };
        let display = Display::new(Emit::now(RunClock::start(), &mut render));
        let queued = |tasks| {
            display.put_now(Event::TasksPlanned { step: String::new(), tasks, is_exact: true });
            display.render();
        };
        std::thread::scope(|scope| {
            let other = scope.spawn(|| queued(1));
            assert_eq!(shown.recv(), Ok(1));
            queued(2);
            queued(3);
            drop(go_on);
            other.join().unwrap();
        });
        assert!(display.queue.is_empty());
        assert_eq!(shown.try_iter().collect::<Vec<_>>(), [2, 3]);
    }
}
