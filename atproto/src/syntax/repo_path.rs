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
        let slash = text.bytes().position(|b| b == b'/').ok_or(invalid("not COLLECTION/RKEY"))?;
        let (collection, rkey) = (&text[..slash], &text[slash + 1..]);
        Nsid::check(collection)?;
        RecordKey::check(rkey)?;
        Ok(RepoPath { collection, rkey })
    }
}
