//! The partials that the `merge` of a fold reads.

use std::marker::PhantomData;

use crate::backend::Backend;
use crate::error::Result;

/// The partials of all parts, in the order of parts. Each is fetched on request, so that
/// `merge` needs memory for what it computes from them, not for all of them.
pub struct Partials<'t, P> {
    pub(crate) backend: &'t dyn Backend,
    pub(crate) kept: PhantomData<P>,
}

impl<P: serde::de::DeserializeOwned> Partials<'_, P> {
    /// The number of partials: as many as the mapped input has parts.
    pub fn len(&self) -> usize {
        self.backend.partials()
    }

    /// Whether there are no parts.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Iterates over all partials, one after the other. A second pass needs a second call.
    pub fn iter(&self) -> impl Iterator<Item = Result<P>> {
        self.kept().map(|kept| kept.read())
    }

    /// Iterates over the serialized partials, for callers that read them in place.
    pub fn kept(&self) -> impl Iterator<Item = Kept> {
        (0..self.len()).map(|index| Kept(self.backend.partial(index)))
    }
}

/// A serialized partial.
pub struct Kept(Vec<u8>);

impl Kept {
    /// Deserializes the partial, or a form of it that borrows:
    /// [`PackedRef`](crate::keys::PackedRef) in place of [`Packed`](crate::keys::Packed).
    ///
    /// # Errors
    /// When the partial has another type.
    pub fn read<'k, Q: serde::Deserialize<'k>>(&'k self) -> Result<Q> {
        Ok(postcard::from_bytes(&self.0)?)
    }
}
