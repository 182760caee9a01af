use super::SyntaxError;

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
        let _ = text;
        todo!()
    }
}
