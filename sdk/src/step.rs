//! What a step is: its ports, its mode, and how it enters a component.

use crate::{Params, Partials, Plan, Result, Task};

/// How the host may cut the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// A named input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: &'static str,
    /// What it carries, for people.
    pub doc: &'static str,
    /// A blob rather than a table.
    pub blob: bool,
    /// An input that may be left out.
    pub optional: bool,
    /// An input that takes all instances of a matrix step.
    pub many: bool,
    /// The input that is cut into parts.
    pub mapped: bool,
}

/// The ports of a step.
#[derive(Debug, Clone, Default)]
pub struct Ports {
    pub(crate) inputs: Vec<Port>,
    pub(crate) outputs: Vec<Port>,
}

fn port(name: &'static str, doc: &'static str) -> Port {
    Port { name, doc, blob: false, optional: false, many: false, mapped: false }
}

impl Ports {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// An input table that `map` and `fold` cut into parts.
    #[must_use]
    pub fn mapped(self, name: &'static str, doc: &'static str) -> Self {
        self.input(Port { mapped: true, ..port(name, doc) })
    }

    /// An input table that is seen as a whole.
    #[must_use]
    pub fn input_table(self, name: &'static str, doc: &'static str) -> Self {
        self.input(port(name, doc))
    }

    /// An input blob.
    #[must_use]
    pub fn input_blob(self, name: &'static str, doc: &'static str) -> Self {
        self.input(Port { blob: true, ..port(name, doc) })
    }

    /// An input that takes the blobs of all instances of a matrix step.
    #[must_use]
    pub fn many_blobs(self, name: &'static str, doc: &'static str) -> Self {
        self.input(Port { blob: true, many: true, ..port(name, doc) })
    }

    /// An input of any shape.
    #[must_use]
    pub fn input(mut self, port: Port) -> Self {
        self.inputs.push(port);
        self
    }

    /// An output table.
    #[must_use]
    pub fn table(mut self, name: &'static str, doc: &'static str) -> Self {
        self.outputs.push(port(name, doc));
        self
    }

    /// An output blob.
    #[must_use]
    pub fn blob(mut self, name: &'static str, doc: &'static str) -> Self {
        self.outputs.push(Port { blob: true, ..port(name, doc) });
        self
    }
}

/// A step: params, ports and a plan. Its work is in [`Map`], [`Fold`], [`Whole`] or
/// [`Rounds`].
pub trait Step: Params {
    /// Its inputs and outputs.
    fn ports() -> Ports;

    /// Says what this use of the step reads and what comes out. Pure and quick.
    ///
    /// # Errors
    /// What is wrong with this use: shown before anything runs.
    fn plan(&self, plan: &mut Plan) -> Result<()>;
}

/// Work on each part by itself.
pub trait Map: Step {
    /// Works on the one part that [`Task::part`] gives.
    ///
    /// # Errors
    /// What is wrong with the data.
    fn map(&self, task: &Task<'_>) -> Result<()>;
}

/// Work on each part, and then on the results.
pub trait Fold: Step {
    /// What is kept of a part.
    type Partial: serde::Serialize + serde::de::DeserializeOwned;

    /// Works on the one part that [`Task::part`] gives.
    ///
    /// # Errors
    /// What is wrong with the data.
    fn partial(&self, task: &Task<'_>) -> Result<Self::Partial>;

    /// Brings the results together, which come in the order of parts, and emits.
    ///
    /// # Errors
    /// What is wrong with the data.
    fn merge(&self, partials: Partials<'_, Self::Partial>, task: &Task<'_>) -> Result<()>;
}

/// Work on all parts at once.
pub trait Whole: Step {
    /// Reads whatever it wants, as often as it wants, and emits.
    ///
    /// # Errors
    /// What is wrong with the data.
    fn whole(&self, task: &Task<'_>) -> Result<()>;
}

/// Work on all parts at once, again and again, as training does: each guest has some of
/// the parts, keeps what it wants of them, and meets the others in
/// [`Task::all_reduce`], where they make one of their numbers.
///
/// All guests run the same function and must come to the same end: the same blobs and
/// metrics, of which the host keeps one. Blobs may be left to the guest with the first
/// rows. Which parts a guest has follows from their number
/// alone, so that what comes out does not depend on the machine. The memory limit is one
/// for all of them together.
pub trait Rounds: Step {
    /// Works on the parts of the mapped port that it sees, which are not all there are.
    ///
    /// # Errors
    /// What is wrong with the data.
    fn rounds(&self, task: &Task<'_>) -> Result<()>;
}

/// What a component says of itself.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Name of the crate, without `millrace-`.
    pub name: &'static str,
    /// Version of the crate.
    pub version: &'static str,
    /// Description of the crate.
    pub doc: &'static str,
    /// The mode, unless a plan says otherwise.
    pub mode: Mode,
}

/// What [`crate::register!`] makes of a step.
pub trait Entry: Step {
    /// What the component says of itself.
    const MANIFEST: Manifest;

    /// Runs the phase that the task is in.
    ///
    /// # Errors
    /// What is wrong with the data.
    fn run(&self, task: &Task<'_>) -> Result<()>;
}

/// Makes a step the component of its crate: `register!(Greet: map)`. With
/// several modes the first is the usual one, and a plan can choose another.
#[macro_export]
macro_rules! register {
    ($step:ty : $first:ident $(, $more:ident)*) => {
        impl $crate::Entry for $step {
            const MANIFEST: $crate::Manifest = $crate::Manifest {
                name: $crate::private::short_name(env!("CARGO_PKG_NAME")),
                version: env!("CARGO_PKG_VERSION"),
                doc: env!("CARGO_PKG_DESCRIPTION"),
                mode: $crate::register!(@mode $first),
            };

            fn run(&self, task: &$crate::Task<'_>) -> $crate::Result<()> {
                $crate::register!(@run self, task, $first);
                $($crate::register!(@run self, task, $more);)*
                Err($crate::Error::new("the step has no function for this phase"))
            }
        }

        #[cfg(target_arch = "wasm32")]
        $crate::guest::export_component!($step);
    };
    (@mode map) => { $crate::Mode::Map };
    (@mode fold) => { $crate::Mode::Fold };
    (@mode whole) => { $crate::Mode::Whole };
    (@mode rounds) => { $crate::Mode::Rounds };
    (@run $self:ident, $task:ident, map) => {
        if $task.phase() == $crate::Phase::Map {
            return $crate::Map::map($self, $task);
        }
    };
    (@run $self:ident, $task:ident, whole) => {
        if $task.phase() == $crate::Phase::Whole {
            return $crate::Whole::whole($self, $task);
        }
    };
    (@run $self:ident, $task:ident, rounds) => {
        if $task.phase() == $crate::Phase::Rounds {
            return $crate::Rounds::rounds($self, $task);
        }
    };
    (@run $self:ident, $task:ident, fold) => {
        if $task.phase() == $crate::Phase::Partial {
            let partial = $crate::Fold::partial($self, $task)?;
            return $task.emit_partial(&partial);
        }
        if $task.phase() == $crate::Phase::Merge {
            return $crate::Fold::merge($self, $task.partials(), $task);
        }
    };
}
