//! Making a cluster, and looking at one.

pub mod groups;
pub mod init;
pub mod moving;
pub mod restore;
pub mod schema;
pub mod status;
#[cfg(test)]
mod tests;
