//! Reads the sources of a run, and of each only the columns that the run needs. Those are known
//! once all nodes that can be planned are, and plans need the schemas of sources.

use std::convert::Infallible;
use std::sync::Arc;

use millrace_threads::Threads;
use millrace_types::{Schema, Table};

use super::display::Emit;
use super::options::{Loaded, Options, RunError};
use super::planner::{Planner, check};
use super::selections::Selections;
use super::trace::SourceSeen;
use crate::chunks::StoreChunks;
use crate::diagnostic::Diagnostic;
use crate::event::Event;
use crate::graph::Graph;
use crate::source::{self, FoundSource, Need, Read, SourceStore};

/// The sources of a run that are found but not read yet.
pub(super) struct Sources<'a> {
    options: &'a Options,
    graph: &'a Graph,
    chunks: &'a StoreChunks,
    found: Vec<FoundSource>,
    /// The schema of each: certain, or the most likely one; `None` if nothing is known.
    schemas: Vec<Option<Schema>>,
}

/// The sources of a run, read, and the plans that follow from their schemas.
pub(super) struct ReadySources<'a> {
    pub(super) planner: Planner<'a>,
    pub(super) tables: Vec<Arc<Table>>,
    pub(super) seen: Vec<SourceSeen>,
}

impl<'a> Sources<'a> {
    /// Finds all sources, and reports errors that are certain before any of them is read.
    ///
    /// # Errors
    /// Those of all sources together, or of the pipeline.
    pub(super) fn find(options: &'a Options, loaded: &'a Loaded, chunks: &'a StoreChunks) -> Result<Self, RunError> {
        let graph = &loaded.graph;
        let found = graph.sources.iter().map(|source| source::find(&options.store, source));
        let found = collect_errors(found.collect())?;
        if found.iter().any(FoundSource::is_guess) {
            let possible: Vec<&[Schema]> = found.iter().map(|found| found.peek().possible()).collect();
            check(graph, loaded, options.jobs, &possible).map_err(RunError::Invalid)?;
        }
        let schemas = found.iter().map(|found| found.peek().likely().cloned()).collect();
        Ok(Self { options, graph, chunks, found, schemas })
    }

    /// Reads the sources and plans the graph. Text whose types differ from those that its beginning
    /// suggests may be read a second time.
    ///
    /// # Errors
    /// When a source cannot be read, or a node cannot be planned.
    pub(super) fn read_and_plan(self, loaded: &'a Loaded, emit: &mut Emit<'_>) -> Result<ReadySources<'a>, RunError> {
        let none = Selections::default();
        let count = self.found.len();
        let mut read: Vec<Option<Read>> = (0..count).map(|_| None).collect();
        let mut needs = vec![Need::All; count];
        self.read(&needs, |source| self.schemas[source].is_none(), &mut read)?;
        let mut planner = Planner::new(self.graph, loaded, self.options.jobs, self.known_schemas(&read));
        let mut planned = planner.plan_all(&none);
        if planned.is_err() && (0..count).any(|source| self.found[source].is_guess() && read[source].is_none()) {
            // The error may follow from a guessed schema.
            self.read(&needs, |source| self.found[source].is_guess(), &mut read)?;
            planner.set_sources(self.known_schemas(&read));
            planned = planner.plan_all(&none);
        }
        planned.map_err(RunError::Invalid)?;
        let unread: Vec<bool> = read.iter().map(Option::is_none).collect();
        for (source, need) in planner.needs().into_iter().enumerate().filter(|(source, _)| unread[*source]) {
            needs[source] = need;
        }
        self.read(&needs, |source| unread[source], &mut read)?;
        planner.set_sources(self.known_schemas(&read));
        planner.plan_all(&none).map_err(RunError::Invalid)?;
        // The final schemas may need more columns, or fewer: a table has the columns that are
        // needed, not all that were read.
        let known = planner.needs();
        self.read(&known, |source| needs[source] != known[source], &mut read)?;
        let read: Vec<Read> = read.into_iter().flatten().collect();
        for (source, read) in self.graph.sources.iter().zip(&read) {
            emit.send(Event::SourceFinished {
                source: source.name.to_string(),
                cached: read.cached,
                rows: read.table.rows(),
                parts: read.table.parts.len(),
                wall_us: read.wall_us,
            });
        }
        let seen = self.graph.sources.iter().zip(&read).map(|(source, read)| SourceSeen::of(source, read)).collect();
        Ok(ReadySources { planner, tables: read.into_iter().map(|read| read.table).collect(), seen })
    }

    fn known_schemas(&self, read: &[Option<Read>]) -> Vec<Option<Schema>> {
        let schema = |(read, schema): (&Option<Read>, &Option<Schema>)| match read {
            Some(read) => Some(read.table.schema.clone()),
            None => schema.clone(),
        };
        read.iter().zip(&self.schemas).map(schema).collect()
    }

    /// Reads the sources for which `which` returns true, on all threads of the run.
    fn read(&self, needs: &[Need], which: impl Fn(usize) -> bool, into: &mut [Option<Read>]) -> Result<(), RunError> {
        let threads = Threads::new(self.options.jobs);
        let selected: Vec<usize> = (0..self.found.len()).filter(|source| which(*source)).collect();
        let to = SourceStore { store: &self.options.store, packs: self.chunks.packs() };
        let read = threads.each(selected, |index| {
            let read = source::read(&to, &self.graph.sources[index], &self.found[index], &needs[index], &threads);
            // Errors of several sources are reported together: an error in one does not stop the
            // others.
            Ok::<_, Infallible>(read.map(|read| (index, read)))
        });
        let Ok(read) = read;
        for (index, mut read) in collect_errors(read)? {
            // A source that is read twice is cached only if it was cached both times.
            read.cached &= into[index].as_ref().is_none_or(|before| before.cached);
            into[index] = Some(read);
        }
        Ok(())
    }
}

/// All values, or the errors of all results.
fn collect_errors<T>(results: Vec<Result<T, Vec<Diagnostic>>>) -> Result<Vec<T>, RunError> {
    let mut all = Vec::with_capacity(results.len());
    let mut errors = Vec::new();
    for result in results {
        match result {
            Ok(value) => all.push(value),
            Err(more) => errors.extend(more),
        }
    }
    if errors.is_empty() { Ok(all) } else { Err(RunError::Invalid(errors)) }
}
