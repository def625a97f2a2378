//! Command-line arguments, and the options that they resolve to.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};
use millrace_engine::pipeline::Overrides;
use millrace_engine::types::ByteSize;
use millrace_engine::{Cancel, Diagnostic, Executor, Options, RunMode, with_remote};
use millrace_store::Store;

/// Runs data and ML pipelines whose steps are WebAssembly components.
///
/// Change one thing, and only what that thing can influence runs again.
#[derive(Parser)]
#[command(name = "host", version, max_term_width = 100)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Run a pipeline; results that are known come from the cache.
    Run(RunArgs),
    /// Show what a run would do, and why, without running a step.
    Plan(PlanArgs),
    /// Explain why a step would run, or why it last did.
    Why(WhyArgs),
    /// Show an artifact: schema, rows, first rows; or write it to a file.
    Show(ShowArgs),
    /// Run one task by its key and publish its record: what an executor or a scheduler calls.
    Exec(ExecArgs),
    /// Draw the pipeline.
    Graph(GraphArgs),
    /// List the runs of this store, or show the events of one.
    Runs(RunsArgs),
    /// Print the JSON Schema of the pipeline file, for editors.
    Schema,
    /// Compile the standard steps for the build of a host that ships their code.
    #[command(hide = true)]
    Precompile {
        /// The folder to write the code to.
        folder: PathBuf,
    },
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// The store of results.
#[derive(ClapArgs)]
pub struct StoreArgs {
    /// The store [default: $XDG_CACHE_HOME/millrace or ~/.cache/millrace].
    #[arg(long, value_name = "DIR", env = "MILLRACE_STORE")]
    pub store: Option<PathBuf>,
    /// A remote store, such as file:///srv/millrace, to read through and to write back to.
    #[arg(long, value_name = "URL", env = "MILLRACE_REMOTE")]
    pub remote: Option<String>,
}

/// The executor of tasks.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ExecutorName {
    /// In this process.
    Local,
    /// Each in a process of its own, `host exec`.
    Process,
}

/// A pipeline and its params.
#[derive(ClapArgs)]
pub struct PipelineArgs {
    /// The pipeline file.
    #[arg(default_value = "pipeline.toml")]
    pub pipeline: PathBuf,
    /// Set a param of the pipeline; the value as in TOML.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// A TOML or JSON file with params.
    #[arg(long, value_name = "FILE")]
    pub params: Vec<PathBuf>,
    /// Print one JSON object per line.
    #[arg(long)]
    pub json: bool,
    /// The store of results.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `host run`
#[derive(ClapArgs)]
pub struct RunArgs {
    /// The pipeline.
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    /// Tasks that run, and threads that read, at a time [default: the number of processors].
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    /// Memory that all guests may have together, such as 4GiB [default: 80 % of the machine's].
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<ByteSize>,
    /// The executor of tasks.
    #[arg(long, value_enum, default_value_t = ExecutorName::Local)]
    pub executor: ExecutorName,
    /// Begin no more tasks after the first failure; running tasks are finished and their results
    /// stored.
    #[arg(long)]
    pub fail_fast: bool,
    /// Show a line for each task, and what steps log at every level.
    #[arg(long, short)]
    pub verbose: bool,
}

/// `host plan`
#[derive(ClapArgs)]
pub struct PlanArgs {
    /// The pipeline.
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    /// Show a line for each task.
    #[arg(long, short)]
    pub verbose: bool,
}

/// `host why`
#[derive(ClapArgs)]
pub struct WhyArgs {
    /// The step, or an instance of it such as `train[l2=0.01]`.
    pub step: String,
    /// The pipeline.
    #[command(flatten)]
    pub pipeline: PipelineArgs,
}

/// `host exec`
#[derive(ClapArgs)]
pub struct ExecArgs {
    /// The action key of the task, as `host run --json` prints it.
    pub key: String,
    /// Run it even if its record exists.
    #[arg(long)]
    pub again: bool,
    /// One JSON object.
    #[arg(long)]
    pub json: bool,
    /// The store of the task and its results.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `host show`
#[derive(ClapArgs)]
pub struct ShowArgs {
    /// A digest (`b3:…`), or `STEP.PORT` of the last run.
    pub artifact: String,
    /// The pipeline whose last run is meant [default: the last run of any pipeline].
    #[arg(long, value_name = "FILE")]
    pub pipeline: Option<PathBuf>,
    /// The number of rows to show.
    #[arg(long, short = 'n', default_value_t = 10)]
    pub rows: usize,
    /// Write it to a file instead: .parquet, .csv, .arrow, .ndjson, or any name for a blob.
    #[arg(long, value_name = "FILE")]
    pub export: Option<PathBuf>,
    /// One JSON object.
    #[arg(long)]
    pub json: bool,
    /// The store of results.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `host graph`
#[derive(ClapArgs)]
pub struct GraphArgs {
    /// The pipeline.
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    /// The format of the drawing.
    #[arg(long, value_enum, default_value_t = GraphFormat::Mermaid)]
    pub format: GraphFormat,
}

/// A format of a drawing.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum GraphFormat {
    /// For Markdown.
    Mermaid,
    /// For Graphviz.
    Dot,
    /// A picture.
    Svg,
}

/// `host runs`
#[derive(ClapArgs)]
pub struct RunsArgs {
    /// The run whose events are shown, as in the list; without it, list the runs.
    pub run: Option<String>,
    /// The number of runs to list.
    #[arg(long, short = 'n', default_value_t = 20)]
    pub last: usize,
    /// Print one JSON object per line.
    #[arg(long)]
    pub json: bool,
    /// The store of results.
    #[command(flatten)]
    pub store: StoreArgs,
}

impl StoreArgs {
    /// Opens the store.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(&self) -> anyhow::Result<Store> {
        let path = match &self.store {
            Some(path) => path.clone(),
            None => {
                let cache = std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
                let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
                let cache = cache.or_else(home);
                cache
                    .ok_or_else(|| anyhow::anyhow!("there is no home folder for the store; name one with --store DIR"))?
                    .join("millrace")
            }
        };
        let store = Store::open(&path)?;
        Ok(match &self.remote {
            Some(url) => with_remote(store, url)?,
            None => store,
        })
    }
}

impl RunArgs {
    /// The executor of tasks.
    ///
    /// # Errors
    /// When the path of this program is not known.
    pub fn executor(&self) -> std::io::Result<Executor> {
        Ok(match self.executor {
            ExecutorName::Local => Executor::Local,
            ExecutorName::Process => {
                let remote = self.pipeline.store.remote.iter().flat_map(|url| ["--remote".to_owned(), url.clone()]);
                Executor::Process { program: std::env::current_exe()?, arguments: remote.collect() }
            }
        })
    }
}

impl PipelineArgs {
    /// The params that are set from outside.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn overrides(&self) -> Result<Overrides, Diagnostic> {
        let mut overrides = Overrides::default();
        for file in &self.params {
            overrides.file(file)?;
        }
        for text in &self.set {
            overrides.set(text)?;
        }
        Ok(overrides)
    }

    /// The options of the engine, to plan and not to run.
    ///
    /// # Errors
    /// When a file with params cannot be read.
    pub fn options(&self, store: Store, mode: RunMode) -> Result<Options, Diagnostic> {
        Ok(Options {
            store,
            pipeline: self.pipeline.clone(),
            overrides: self.overrides()?,
            jobs: default_jobs(),
            memory: u64::MAX,
            fail_fast: false,
            mode,
            executor: Executor::Local,
            cancel: Cancel::default(),
        })
    }
}

/// The number of threads that the machine runs at a time.
pub fn default_jobs() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// 80 % of the memory of the machine, or of the control group of this process.
pub fn default_memory() -> u64 {
    millrace_platform::machine_memory() / 5 * 4
}
