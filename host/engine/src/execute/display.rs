//! Events on their way to the renderer.
//!
//! Rendering takes time, and a full pipe can block it for ever. So the worker that schedules
//! only queues events, and afterwards one free worker renders them for all; no other worker
//! waits for it. This module knows nothing of what an event says.

use std::sync::atomic::{Ordering, fence};
use std::sync::{Mutex, PoisonError};

use crossbeam_queue::SegQueue;

use crate::event::Event;

/// Where events go.
pub(super) enum Emit<'a> {
    /// To the renderer, at once.
    Now(&'a mut (dyn FnMut(Event) + Send)),
    /// They are collected, and sent by the caller later.
    Later(Vec<Event>),
}

impl Emit<'_> {
    /// Sends or collects an event.
    pub(super) fn send(&mut self, event: Event) {
        match self {
            Self::Now(render) => render(event),
            Self::Later(events) => events.push(event),
        }
    }

    /// Takes the collected events.
    pub(super) fn take(&mut self) -> Vec<Event> {
        match self {
            Self::Now(_) => Vec::new(),
            Self::Later(events) => std::mem::take(events),
        }
    }
}

/// A queue of events in the order in which things happened, and the renderer.
pub(super) struct Display<'a> {
    queue: SegQueue<Event>,
    renderer: Mutex<Emit<'a>>,
}

impl<'a> Display<'a> {
    pub(super) fn new(renderer: Emit<'a>) -> Self {
        Self { queue: SegQueue::new(), renderer: Mutex::new(renderer) }
    }

    /// Queues events.
    pub(super) fn put(&self, events: impl IntoIterator<Item = Event>) {
        events.into_iter().for_each(|event| self.queue.push(event));
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
                renderer.send(event);
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
        let mut render = move |event| {
            let Event::TasksFound { total } = event else { panic!("only such events are sent") };
            let _ = showing.send(total);
            let _ = held.recv();
        };
        let display = Display::new(Emit::Now(&mut render));
        let queued = |total| {
            display.put([Event::TasksFound { total }]);
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
