//! Arguments, as parsed, and what they resolve to.

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
    /// Run a pipeline; what is known already comes from the cache.
    Run(RunArgs),
    /// Say what a run would do, and why, without running a step.
    Plan(PlanArgs),
    /// Say why a step would run, or why it last did.
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
        /// Where to write the code.
        folder: PathBuf,
    },
    /// Print completions for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// Where results are kept.
#[derive(ClapArgs)]
pub struct StoreArgs {
    /// The store [default: $XDG_CACHE_HOME/millrace or ~/.cache/millrace].
    #[arg(long, value_name = "DIR", env = "MILLRACE_STORE")]
    pub store: Option<PathBuf>,
    /// A remote store, such as file:///srv/millrace, to read through and to write back to.
    #[arg(long, value_name = "URL", env = "MILLRACE_REMOTE")]
    pub remote: Option<String>,
}

/// Where tasks are computed.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ExecutorName {
    /// In this process.
    Local,
    /// Each in a process of its own, `host exec`.
    Process,
}

/// A pipeline and what is set in it.
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
    /// One JSON object for each line, for machines.
    #[arg(long)]
    pub json: bool,
    /// Where results are kept.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `host run`
#[derive(ClapArgs)]
pub struct RunArgs {
    /// The pipeline.
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    /// Tasks that run, and threads that read, at a time [default: the processors there are].
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    /// Memory that all guests may have together, such as 4GiB [default: 80 % of the machine's].
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<ByteSize>,
    /// Where tasks are computed.
    #[arg(long, value_enum, default_value_t = ExecutorName::Local)]
    pub executor: ExecutorName,
    /// Begin nothing more after the first failure; what runs is finished and kept.
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
    /// Run it even if its record is there.
    #[arg(long)]
    pub again: bool,
    /// One JSON object.
    #[arg(long)]
    pub json: bool,
    /// Where the task is, and where its results are kept.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `host show`
#[derive(ClapArgs)]
pub struct ShowArgs {
    /// A digest (`b3:…`), or `STEP.PORT` of the last run.
    pub artifact: String,
    /// The pipeline whose last run is meant [default: the last run of all].
    #[arg(long, value_name = "FILE")]
    pub pipeline: Option<PathBuf>,
    /// How many rows to show.
    #[arg(long, short = 'n', default_value_t = 10)]
    pub rows: usize,
    /// Write it to a file instead: .parquet, .csv, .arrow, .ndjson, or any name for a blob.
    #[arg(long, value_name = "FILE")]
    pub export: Option<PathBuf>,
    /// One JSON object.
    #[arg(long)]
    pub json: bool,
    /// Where results are kept.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `host graph`
#[derive(ClapArgs)]
pub struct GraphArgs {
    /// The pipeline.
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    /// What to draw it as.
    #[arg(long, value_enum, default_value_t = GraphFormat::Mermaid)]
    pub format: GraphFormat,
}

/// What a drawing can be.
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
    /// How many.
    #[arg(long, short = 'n', default_value_t = 20)]
    pub last: usize,
    /// One JSON object for each line.
    #[arg(long)]
    pub json: bool,
    /// Where results are kept.
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
    /// Where tasks are computed.
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
    /// What is set from outside.
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

    /// What the engine is given, to look and not to run.
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

/// As many as the machine runs at a time.
pub fn default_jobs() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// 80 % of what the machine has, or the control group that this runs in.
pub fn default_memory() -> u64 {
    let info = rustix::system::sysinfo();
    let machine = info.totalram as u64 * u64::from(info.mem_unit.max(1));
    let read = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let group = read("/sys/fs/cgroup/memory.max").or_else(|| read("/sys/fs/cgroup/memory/memory.limit_in_bytes"));
    machine.min(group.unwrap_or(u64::MAX)) / 5 * 4
}
