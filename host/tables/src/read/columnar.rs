//! What the readers of columnar formats share.

use std::path::Path;

use ::arrow::datatypes::{Field as ArrowField, FieldRef};
use millrace_threads::Threads;
use millrace_types::Schema;

use super::error::ReadError;
use super::guard::guarded;
use super::options::ReadOptions;
use super::predicate;
use crate::column::field_from_arrow;

/// The schema that a file declares, as a table of it would have; `None` where a column that
/// is read has a type that no table can hold, or a name occurs twice.
pub(super) fn declared(schema: &::arrow::datatypes::Schema, options: &ReadOptions) -> Option<Schema> {
    let mut found = unpacked(schema, options)?;
    for field in &mut found.fields {
        field.data_type = options.types.get(field.name.as_str()).unwrap_or(&field.data_type).clone();
    }
    let found = selected(options, found)?;
    found.duplicate().is_none().then_some(found)
}

/// The columns of a schema that the options select, in their order.
pub(super) fn selected(options: &ReadOptions, schema: Schema) -> Option<Schema> {
    let Some(columns) = &options.columns else { return Some(schema) };
    let fields = columns.iter().map(|name| Some(schema.find(name)?.1.clone())).collect::<Option<_>>()?;
    Some(Schema { fields })
}

/// The schema that a file declares, with dictionaries and views as plain types. Columns that
/// are not selected may be of any type.
fn unpacked(schema: &::arrow::datatypes::Schema, options: &ReadOptions) -> Option<Schema> {
    let is_wanted = |field: &&FieldRef| options.columns.as_ref().is_none_or(|names| names.contains(field.name()));
    let field = |field: &FieldRef| {
        field_from_arrow(&ArrowField::new(field.name(), predicate::unpacked(field.data_type()), true)).ok()
    };
    Some(Schema { fields: schema.fields().iter().filter(is_wanted).map(field).collect::<Option<_>>()? })
}

/// Checks that a file has the columns that the options name.
///
/// # Errors
/// [`ReadError::NoColumn`] for the first that does not exist.
pub(super) fn check_names(
    path: &Path,
    options: &ReadOptions,
    schema: &::arrow::datatypes::Schema,
) -> Result<(), ReadError> {
    let mut names = options.types.keys().chain(options.columns.iter().flatten());
    match names.find(|name| schema.index_of(name).is_err()) {
        Some(name) => {
            let candidates = schema.fields().iter().map(|field| field.name().clone()).collect();
            Err(ReadError::NoColumn { path: path.to_owned(), name: name.clone(), candidates })
        }
        None => Ok(()),
    }
}

/// Applies `each` to the units of a file on the free threads, with a state that `begin` makes
/// for each thread.
///
/// # Errors
/// That of the first unit that failed.
pub(super) fn each_unit<S>(
    path: &Path,
    count: usize,
    threads: &Threads,
    begin: impl Fn() -> Result<S, ReadError> + Sync,
    each: impl Fn(&mut S, usize) -> Result<(), ReadError> + Sync,
) -> Result<(), ReadError> {
    let done = threads.each_with(
        0..count,
        || None,
        |begun: &mut Option<S>, index| {
            guarded(Some(path), || {
                let begun = match begun {
                    Some(begun) => begun,
                    None => begun.insert(begin()?),
                };
                each(begun, index)
            })
        },
    );
    done.map(drop)
}
