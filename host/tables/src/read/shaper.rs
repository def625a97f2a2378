//! Shapes the arrays that were read into parts: the selected columns in their order, converted
//! and filtered, with one schema for all parts. It knows Arrow's arrays and nothing of the
//! files that they come from.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use ::arrow::array::ArrayRef;
use ::arrow::datatypes::Fields;
use millrace_types::{Field, Schema};

use super::error::ReadError;
use super::options::ReadOptions;
use super::part_id::PartId;
use super::predicate::{self, Batch};
use super::sink::Sink;
use crate::column::{ColumnBytes, field_from_arrow};

/// Makes the parts of a source, which share one schema.
pub(super) struct Shaper<'a> {
    pub(super) options: &'a ReadOptions,
    /// The schema of the first part.
    schema: OnceLock<Schema>,
    next: AtomicU64,
}

/// A column that the sink takes.
pub(super) struct Kept {
    /// Its index among the fields that were read.
    pub(super) place: usize,
    pub(super) field: Field,
}

impl Kept {
    /// The column with the values of a converted array.
    pub(super) fn column(&self, path: &Path, array: &ArrayRef) -> Result<ColumnBytes, ReadError> {
        ColumnBytes::from_array(&**array).map_err(|error| ReadError::column(path, self.field.name.as_str(), &error))
    }
}

impl<'a> Shaper<'a> {
    pub(super) fn new(options: &'a ReadOptions) -> Self {
        Self { options, schema: OnceLock::new(), next: AtomicU64::new(0) }
    }

    /// Whether the schema is known: there was a part.
    pub(super) fn is_known(&self) -> bool {
        self.schema.get().is_some()
    }

    pub(super) fn finish(self, path: Option<&PathBuf>, what: &str) -> Result<Schema, ReadError> {
        self.schema.into_inner().ok_or_else(|| ReadError::content(&path.cloned().unwrap_or_default(), None, what))
    }

    /// Emits the next part; a batch without rows only determines the schema.
    pub(super) fn emit(&self, path: &Path, batch: Batch, sink: &dyn Sink) -> Result<(), ReadError> {
        self.emit_at(PartId::sequential(self.next.fetch_add(1, Ordering::Relaxed)), path, batch, sink)
    }

    /// Emits the part with this id; a batch without rows only determines the schema.
    pub(super) fn emit_at(&self, id: PartId, path: &Path, batch: Batch, sink: &dyn Sink) -> Result<(), ReadError> {
        let mut batch = predicate::apply(path, self.options, batch)?;
        let mut kept = self.kept(path, batch.schema.fields(), sink)?;
        kept.retain(|kept| batch.arrays[kept.place].is_some());
        if batch.rows == 0 {
            return Ok(());
        }
        let mut part = sink.begin(id, &schema(&kept), batch.rows)?;
        for kept in &kept {
            if let Some(array) = batch.arrays[kept.place].take() {
                part.column(kept.column(path, &array)?)?;
            }
        }
        Ok(part.end()?)
    }

    /// The selected columns that the sink takes, among these fields of converted columns.
    pub(super) fn kept(&self, path: &Path, fields: &Fields, sink: &dyn Sink) -> Result<Vec<Kept>, ReadError> {
        // There may be thousands: names are looked up in a map.
        let places: Vec<(&str, Option<usize>)> = match &self.options.columns {
            Some(names) => {
                let places: HashMap<&str, usize> =
                    fields.iter().zip(0..).map(|(field, place)| (field.name().as_str(), place)).collect();
                names.iter().map(|name| (name.as_str(), places.get(name.as_str()).copied())).collect()
            }
            None => fields.iter().zip(0..).map(|(field, place)| (field.name().as_str(), Some(place))).collect(),
        };
        let (mut all, mut kept) = (Vec::with_capacity(places.len()), Vec::with_capacity(places.len()));
        for (name, place) in places {
            let place = place.ok_or_else(|| ReadError::NoColumn {
                path: path.to_owned(),
                name: name.to_owned(),
                candidates: fields.iter().map(|field| field.name().clone()).collect(),
            })?;
            // Any later part may have nulls, and a change of nullability would change all keys.
            let field = field_from_arrow(&fields[place].as_ref().clone().with_nullable(true))
                .map_err(|error| ReadError::column(path, name, &error))?;
            if sink.wants(name) {
                kept.push(Kept { place, field: field.clone() });
            }
            all.push(field);
        }
        self.fits(path, fields, Schema { fields: all })?;
        Ok(kept)
    }

    /// Checks that a part has the schema of the first.
    fn fits(&self, path: &Path, read: &Fields, found: Schema) -> Result<(), ReadError> {
        match self.schema.get() {
            None => {
                if let Some(twice) = twice(read.iter().map(|field| field.name().as_str())) {
                    return Err(ReadError::content(path, None, format!("two columns are called `{twice}`")));
                }
                if let Some(twice) = twice(found.names()) {
                    return Err(ReadError::content(path, None, format!("`columns` names `{twice}` twice")));
                }
                // Another thread may have been first.
                match self.schema.get_or_init(|| found.clone()) {
                    first if *first == found => Ok(()),
                    first => Err(ReadError::content(path, None, difference(first, &found))),
                }
            }
            Some(first) if *first == found => Ok(()),
            Some(first) => Err(ReadError::content(path, None, difference(first, &found))),
        }
    }
}

/// The first name that occurs a second time.
fn twice<'n>(mut names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let mut seen = HashSet::new();
    names.find(|name| !seen.insert(*name))
}

/// The schema of these columns.
pub(super) fn schema(kept: &[Kept]) -> Schema {
    Schema { fields: kept.iter().map(|kept| kept.field.clone()).collect() }
}

fn difference(known: &Schema, found: &Schema) -> String {
    let lacks = |schema: &Schema, field: &Field| schema.find(field.name.as_str()).is_none();
    if let Some(gone) = known.fields.iter().find(|field| lacks(found, field)) {
        return format!("it has no column `{}`, which earlier files have", gone.name);
    }
    if let Some(new) = found.fields.iter().find(|field| lacks(known, field)) {
        return format!("it has a column `{}`, which earlier files do not have", new.name);
    }
    let pairs = known.fields.iter().zip(&found.fields);
    match pairs.into_iter().find(|(a, b)| a != b) {
        Some((a, b)) if a.name == b.name => {
            format!("column `{}` is {} here and {} in earlier files", a.name, b.data_type, a.data_type)
        }
        Some((a, b)) => format!("it has column `{}` where earlier files have `{}`", b.name, a.name),
        None => format!("it has {} columns, and earlier files have {}", found.fields.len(), known.fields.len()),
    }
}
