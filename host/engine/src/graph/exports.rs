//! The files that a pipeline writes: none of them may be something that it reads.

use std::path::{Component, Path, PathBuf};

use millrace_tables::read::Format;
use millrace_types::PortKind;

use super::builder::Builder;
use super::model::NodeExport;
use super::resolve::ResolvedItems;
use crate::diagnostic::{Diagnostic, Span};
use crate::pipeline::{Export, Scope, Source, Step};
use crate::source::{Pattern, matches, resolved};

impl Builder<'_> {
    /// The error of a path that cannot be an export.
    fn unfit(&self, path: &Path, kind: PortKind, span: &Span, sources: &[Source]) -> Option<Diagnostic> {
        let wrong = |what: String, help: &str| {
            Some(Diagnostic::new(format!("`{}` {what}", path.display())).at(span, "this export").help(help))
        };
        let is_packed = path.extension().is_some_and(|extension| extension == "gz" || extension == "zip");
        if path.file_name().is_none() || path.is_dir() {
            return wrong("is a folder".to_owned(), "an export is a file: add a name");
        }
        if kind == PortKind::Table && (is_packed || Format::of(path).is_none()) {
            let help = "the name decides the format: .parquet, .csv, .arrow or .ndjson";
            return wrong("does not name a table format".to_owned(), help);
        }
        let above = path.ancestors().skip(1).find(|above| above.exists());
        if let Some(file) = above.filter(|above| !above.as_os_str().is_empty() && !above.is_dir()) {
            return wrong(format!("cannot be written: `{}` is not a folder", file.display()), "choose another folder");
        }
        let help = "results go to files of their own; their inputs stay unchanged";
        if self.pipeline.files.iter().any(|file| same_file(&file.path, path)) {
            return wrong("is a pipeline file".to_owned(), help);
        }
        if self.params_files.iter().any(|file| same_file(file, path)) {
            return wrong("is a params file".to_owned(), help);
        }
        if let Some(source) = sources.iter().find(|source| reads(source, path)) {
            return wrong(format!("is read by the source `{}`", source.name), help);
        }
        if resolved(path).starts_with(resolved(&self.store)) {
            return wrong("is in the store".to_owned(), help);
        }
        let grants = |step: &&Step| {
            let mut folders = step.grants.read.iter().map(|(name, _)| step.folder.join(name));
            folders.any(|folder| path.ancestors().skip(1).any(|above| same_file(above, &folder)))
        };
        if let Some(step) = self.pipeline.steps.iter().find(grants) {
            return wrong(format!("is in a folder that is granted to the step `{}`", step.name), help);
        }
        None
    }

    /// The files to write.
    pub(super) fn exports(&mut self, sources: &[Source]) -> Vec<NodeExport> {
        let mut out: Vec<NodeExport> = Vec::new();
        for export in &self.pipeline.exports {
            let Some((kind, resolved)) = self.items(&export.reference, &export.span) else { continue };
            let items = match resolved {
                ResolvedItems::Each(items) => items,
                ResolvedItems::Gathered(items) => items,
            };
            for (matrix, item) in items {
                let scope = Scope { params: self.params.clone(), matrix };
                match scope.text(&export.path) {
                    Ok(path) => {
                        let path = normalised(&export.folder.join(path));
                        if let Some(error) = self.unfit(&path, kind, &export.span, sources) {
                            self.errors.push(error);
                            break;
                        }
                        if let Some(error) = collision(&out, &path, export) {
                            self.errors.push(error);
                            break;
                        }
                        out.push(NodeExport { path, item, span: export.span.clone() });
                    }
                    Err(message) => self
                        .errors
                        .push(Diagnostic::new(message.to_string()).at(&export.span, "in the path of this export")),
                }
            }
        }
        out
    }
}

/// The error of a path that collides with other exports.
fn collision(others: &[NodeExport], path: &Path, export: &Export) -> Option<Diagnostic> {
    let within =
        |known: &&NodeExport| known.path != path && (known.path.starts_with(path) || path.starts_with(&known.path));
    if let Some(known) = others.iter().find(within) {
        let message = format!("`{}` and `{}` cannot both be files", known.path.display(), path.display());
        return Some(Diagnostic::new(message).at(&known.span, "one").at(&export.span, "the other"));
    }
    others.iter().any(|known| known.path == path).then(|| {
        let error = Diagnostic::new(format!("several artifacts would be written to `{}`", path.display()));
        let help = "choose one with `[CHOICE]` or `[name=value]`, or put `${matrix.NAME}` into the path";
        error.at(&export.span, "these").help(help)
    })
}

/// The path without `.`, and without `..` after a name, so that each file has one path.
fn normalised(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if matches!(out.components().next_back(), Some(Component::Normal(_))) => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

/// Whether a source reads a file, or would if it existed.
fn reads(source: &Source, path: &Path) -> bool {
    let found = Pattern::of(source).files().is_ok_and(|files| files.iter().any(|file| same_file(file, path)));
    found || matches(source, path)
}

fn same_file(a: &Path, b: &Path) -> bool {
    let absolute = |path: &Path| std::path::absolute(path).map(|path| normalised(&path)).unwrap_or_default();
    absolute(a) == absolute(b) || a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b))
}
