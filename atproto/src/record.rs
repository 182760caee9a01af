//! Records, as far as a relay looks into them: their form, never what they mean (specification: Data Model).

use crate::cbor::{CborError, Kind, Limits, Reader};

/// Bounds for a record: those of every item from outside.
pub const LIMITS: Limits = Limits::DEFAULT;

/// Walks over a record's block. Always checks that it is one map in canonical DAG-CBOR, its nesting, the sizes of its
/// containers and the lengths of its keys. Allocates nothing.
///
/// Does not check fields, `$type` among them, nor what links name: any codec and hash will do. Floats are
/// outside the data model, but there are records that have them; they pass.
pub fn check(block: &[u8]) -> Result<(), CborError> {
    let mut reader = Reader::with_limits(block, &LIMITS);
    if reader.peek()? != Kind::Map {
        return Err(reader.error("a record that is not a map"));
    }
    reader.skip()?;
    reader.finish()
}
