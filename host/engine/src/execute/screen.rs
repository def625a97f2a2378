//! How events come to whoever shows them.
//!
//! To show them takes time, and it may take for ever: whoever decides puts them aside, and
//! afterwards one worker that is free shows them, for all. The others do not wait for it. It
//! knows nothing of what an event says.

use std::sync::atomic::{Ordering, fence};
use std::sync::{Mutex, PoisonError};

use crossbeam_queue::SegQueue;

use crate::event::Event;

/// Where events go.
pub(super) enum Emit<'a> {
    /// To whoever shows them, at once.
    Now(&'a mut (dyn FnMut(Event) + Send)),
    /// They are sent on by whoever holds the run: to show them takes time, and it may take
    /// for ever.
    Later(Vec<Event>),
}

impl Emit<'_> {
    pub(super) fn tell(&mut self, event: Event) {
        match self {
            Self::Now(show) => show(event),
            Self::Later(events) => events.push(event),
        }
    }

    /// Those that wait.
    pub(super) fn take(&mut self) -> Vec<Event> {
        match self {
            Self::Now(_) => Vec::new(),
            Self::Later(events) => std::mem::take(events),
        }
    }
}

/// Events on their way to whoever shows them, in the order in which things happened.
pub(super) struct Screen<'a> {
    waiting: SegQueue<Event>,
    show: Mutex<Emit<'a>>,
}

impl<'a> Screen<'a> {
    pub(super) fn new(show: Emit<'a>) -> Self {
        Self { waiting: SegQueue::new(), show: Mutex::new(show) }
    }

    /// Takes events, to be shown later.
    pub(super) fn put(&self, events: impl IntoIterator<Item = Event>) {
        events.into_iter().for_each(|event| self.waiting.push(event));
    }

    /// Shows what waits, unless somebody is at it, who looks again before going away.
    pub(super) fn show(&self) {
        loop {
            // Who puts something there looks afterwards whether somebody shows, and who has
            // shown whether something is there: one of them sees the other.
            fence(Ordering::SeqCst);
            if self.waiting.is_empty() {
                return;
            }
            let Ok(mut show) = self.show.try_lock() else { return };
            while let Some(event) = self.waiting.pop() {
                show.tell(event);
            }
        }
    }

    pub(super) fn into_emit(self) -> Emit<'a> {
        self.show.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    /// Who comes while another shows goes on at once, and the other shows what it has left.
    #[test]
    fn nobody_waits_for_whoever_shows() {
        let (showing, shown) = channel();
        let (go_on, held) = channel::<()>();
        let mut show = move |event| {
            let Event::TasksFound { total } = event else { panic!("only such events are told") };
            let _ = showing.send(total);
            let _ = held.recv();
        };
        let screen = Screen::new(Emit::Now(&mut show));
        let told = |total| {
            screen.put([Event::TasksFound { total }]);
            screen.show();
        };
        std::thread::scope(|scope| {
            let other = scope.spawn(|| told(1));
            assert_eq!(shown.recv(), Ok(1));
            told(2);
            told(3);
            drop(go_on);
            other.join().unwrap();
        });
        assert!(screen.waiting.is_empty());
        assert_eq!(shown.try_iter().collect::<Vec<_>>(), [2, 3]);
    }
}
