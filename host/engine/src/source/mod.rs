//! Sources: from files to tables, read again only when their content or the options changed.

mod error;
mod files;
mod find;
mod key;
mod need;
mod read;
pub(crate) mod record;
mod sink;
pub(crate) mod unread;

pub(crate) use error::SourceError;
pub(crate) use files::{Inputs, Pattern, matches, resolved};
pub(crate) use find::{FoundSource, Read, find, read};
pub(crate) use need::Need;
pub(crate) use record::packs;
pub(crate) use sink::SourceStore;
