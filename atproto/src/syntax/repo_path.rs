use super::{Nsid, RecordKey, SyntaxError};

/// A record's path in its repo, `collection/rkey`, borrowed: the key of the MST, at most 1,024 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepoPath<'a> {
    /// The NSID.
    pub collection: &'a str,
    /// The record key.
    pub rkey: &'a str,
}

impl<'a> RepoPath<'a> {
    /// Splits and checks both parts.
    pub fn parse(text: &'a str) -> Result<RepoPath<'a>, SyntaxError> {
        let invalid = |why| SyntaxError { what: "repo path", why };
        if text.len() > 1_024 {
            return Err(invalid("longer than 1,024 bytes"));
        }
        let (collection, rkey) = text.split_once('/').ok_or(invalid("not COLLECTION/RKEY"))?;
        Nsid::check(collection)?;
        RecordKey::check(rkey)?;
        Ok(RepoPath { collection, rkey })
    }
}
