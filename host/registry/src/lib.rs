//! The sources of components. For now: the standard steps inside the host.

use millrace_types::ComponentDigest;

/// A component that ships inside the host.
#[derive(Debug, Clone, Copy)]
pub struct Bundled {
    /// The name after `std:`.
    pub name: &'static str,
    /// The digest of its bytes.
    pub digest: ComponentDigest,
    /// The component.
    pub bytes: &'static [u8],
    /// Its compiled code, if this program was built with it: the version of the code, and the code.
    pub code: Option<(&'static str, &'static [u8])>,
}

include!(concat!(env!("OUT_DIR"), "/bundled.rs"));

/// All standard steps, by name.
pub fn bundled() -> &'static [Bundled] {
    BUNDLED
}
