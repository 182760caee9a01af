//! Shards: a firehose cut into parts by account, so that a consumer can read it in several streams. Pure.
//!
//! Consumers compute the same: shard `i` of `n` are the accounts with `h % n == i`, where `h` is the first 8 bytes of
//! the SHA-256 of the DID, big-endian.

use std::{fmt, str::FromStr};

/// Into how many parts a firehose may be cut: far more than there are processes that read one.
pub const COUNT_MAX: u32 = 1024;

/// One of `count` parts of all accounts, written `index/count`. All events of an account are in the same part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: u32,
    count: u32,
}

/// Not a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShardError {
    /// Not two numbers with a slash between them.
    #[error("shard must be written i/n, like 0/4 for the first of four")]
    Form,
    /// No parts, or too many.
    #[error("shard i/n: n must be from 1 to {COUNT_MAX}")]
    Count,
    /// A part that is not there.
    #[error("shard i/n: i counts from 0, so that it must be below n")]
    Index,
}

impl Shard {
    /// Part `index` of `count`, from 0.
    pub fn new(index: u32, count: u32) -> Result<Shard, ShardError> {
        match (index, count) {
            (_, 0) => Err(ShardError::Count),
            (_, count) if count > COUNT_MAX => Err(ShardError::Count),
            (index, count) if index >= count => Err(ShardError::Index),
            (index, count) => Ok(Shard { index, count }),
        }
    }

    /// Whether an account, by its [`lane_hash`](atproto::syntax::Did::lane_hash), is in this part.
    pub fn holds(self, account: u64) -> bool {
        account % u64::from(self.count) == u64::from(self.index)
    }
}

impl FromStr for Shard {
    type Err = ShardError;

    fn from_str(text: &str) -> Result<Shard, ShardError> {
        let (index, count) = text.split_once('/').ok_or(ShardError::Form)?;
        // Only digits: no sign, which `parse` would take.
        let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
            true => text.parse().map_err(|_| ShardError::Form),
            false => Err(ShardError::Form),
        };
        Shard::new(number(index)?, number(count)?)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

#[cfg(test)]
mod tests {
    use atproto::syntax::Did;

    use super::*;

    #[test]
    fn each_account_is_in_one_part() {
        for count in 1..9 {
            let shards: Vec<Shard> = (0..count).map(|index| Shard::new(index, count).unwrap()).collect();
            for account in [0, 1, 7, 8, u64::MAX] {
                assert_eq!(shards.iter().filter(|shard| shard.holds(account)).count(), 1, "{account} of {count}");
            }
        }
    }

    #[test]
    fn it_is_read_as_it_is_written() {
        for text in ["0/1", "3/4", "1023/1024"] {
            assert_eq!(text.parse::<Shard>().unwrap().to_string(), text);
        }
        for (text, error) in [
            ("", ShardError::Form),
            ("1", ShardError::Form),
            ("/", ShardError::Form),
            ("1/", ShardError::Form),
            ("+1/4", ShardError::Form),
            ("-1/4", ShardError::Form),
            ("1/4/2", ShardError::Form),
            (" 1/4", ShardError::Form),
            ("1/99999999999", ShardError::Form),
            ("0/0", ShardError::Count),
            ("0/1025", ShardError::Count),
            ("1/1", ShardError::Index),
            ("4/4", ShardError::Index),
        ] {
            assert_eq!(text.parse::<Shard>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn consumers_can_compute_it() {
        // SHA-256 of did:plc:ewvi7nxzyoun6zhxrhs64oiz begins with these bytes.
        let hash = Did::lane_hash("did:plc:ewvi7nxzyoun6zhxrhs64oiz");
        assert_eq!(hash, 0x099e4ea96cd62c05);
        assert!(Shard::new(1, 4).unwrap().holds(hash));
    }
}
