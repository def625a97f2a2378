//! The definition of a step: its ports, its mode, and its entry point in a component.

use crate::error::Result;
use crate::mode::Mode;
use crate::params::Params;
use crate::partials::Partials;
use crate::plan::Plan;
use crate::task::Task;

/// A named input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The name.
    pub name: &'static str,
    /// What it carries, as documentation.
    pub doc: &'static str,
    /// Whether it carries a blob rather than a table.
    pub blob: bool,
    /// Whether the input may be left out.
    pub optional: bool,
    /// Whether the input takes all instances of a matrix step.
    pub many: bool,
    /// Whether the input is divided into parts.
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
    /// Creates an empty set of ports.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an input table that `map` and `fold` divide into parts.
    #[must_use]
    pub fn mapped(self, name: &'static str, doc: &'static str) -> Self {
        self.input(Port { mapped: true, ..port(name, doc) })
    }

    /// Adds an input table that every task sees as a whole.
    #[must_use]
    pub fn input_table(self, name: &'static str, doc: &'static str) -> Self {
        self.input(port(name, doc))
    }

    /// Adds an input blob.
    #[must_use]
    pub fn input_blob(self, name: &'static str, doc: &'static str) -> Self {
        self.input(Port { blob: true, ..port(name, doc) })
    }

    /// Adds an input that takes the blobs of all instances of a matrix step.
    #[must_use]
    pub fn many_blobs(self, name: &'static str, doc: &'static str) -> Self {
        self.input(Port { blob: true, many: true, ..port(name, doc) })
    }

    /// Adds any input.
    #[must_use]
    pub fn input(mut self, port: Port) -> Self {
        self.inputs.push(port);
        self
    }

    /// Adds an output table.
    #[must_use]
    pub fn table(mut self, name: &'static str, doc: &'static str) -> Self {
        self.outputs.push(port(name, doc));
        self
    }

    /// Adds an output blob.
    #[must_use]
    pub fn blob(mut self, name: &'static str, doc: &'static str) -> Self {
        self.outputs.push(Port { blob: true, ..port(name, doc) });
        self
    }
}

/// A step: params, ports and a plan. Its work is in [`Map`], [`Fold`], [`Whole`] or
/// [`Rounds`].
pub trait Step: Params {
    /// The inputs and outputs.
    fn ports() -> Ports;

    /// Declares the reads and the outputs of this use of the step. Must be pure and fast.
    ///
    /// # Errors
    /// When this use is invalid; reported before anything runs.
    fn plan(&self, plan: &mut Plan) -> Result<()>;
}

/// Work on each part on its own.
pub trait Map: Step {
    /// Processes the one part that [`Task::part`] returns.
    ///
    /// # Errors
    /// When the data are invalid.
    fn map(&self, task: &Task<'_>) -> Result<()>;
}

/// Work on each part, and then on the results.
pub trait Fold: Step {
    /// The partial result of a part.
    type Partial: serde::Serialize + serde::de::DeserializeOwned;

    /// Processes the one part that [`Task::part`] returns.
    ///
    /// # Errors
    /// When the data are invalid.
    fn partial(&self, task: &Task<'_>) -> Result<Self::Partial>;

    /// Merges the partial results, which come in the order of parts, and emits the outputs.
    ///
    /// # Errors
    /// When the data are invalid.
    fn merge(&self, partials: Partials<'_, Self::Partial>, task: &Task<'_>) -> Result<()>;
}

/// Work on all parts at once.
pub trait Whole: Step {
    /// Reads its inputs, as often as it needs, and emits the outputs.
    ///
    /// # Errors
    /// When the data are invalid.
    fn whole(&self, task: &Task<'_>) -> Result<()>;
}

/// Repeated work on all parts at once, such as training: each guest has some of the parts,
/// holds what it needs of them, and meets the others in [`Task::all_reduce`], which reduces
/// their numbers.
///
/// All guests run the same function and must produce the same blobs and metrics, of which the
/// host stores one copy. Blobs may be left to the guest with the first rows. Which parts a
/// guest has depends only on the number of parts, so that the result does not depend on the
/// machine. All guests of a task share one memory limit.
pub trait Rounds: Step {
    /// Processes the parts of the mapped port that this guest sees, which are not all of them.
    ///
    /// # Errors
    /// When the data are invalid.
    fn rounds(&self, task: &Task<'_>) -> Result<()>;
}

/// The manifest of a component.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Name of the crate, without `millrace-`.
    pub name: &'static str,
    /// Version of the crate.
    pub version: &'static str,
    /// Description of the crate.
    pub doc: &'static str,
    /// The mode, unless a plan chooses another.
    pub mode: Mode,
}

/// The entry point that [`crate::register!`] implements for a step.
pub trait Entry: Step {
    /// The manifest of the component.
    const MANIFEST: Manifest;

    /// Runs the phase that the task is in.
    ///
    /// # Errors
    /// When the data are invalid.
    fn run(&self, task: &Task<'_>) -> Result<()>;
}

/// Registers a step as the component of its crate: `register!(Greet: map)`. With several modes
/// the first is the default, and a plan can choose another.
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
