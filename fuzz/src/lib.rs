//! What must hold of any bytes from a stranger, one function for each fuzz target: nothing panics, and what is accepted
//! holds together. The stable tests of each crate include its file and run it over the seeds and the corpus.

pub mod formats;
pub mod judge;
pub mod ws;
