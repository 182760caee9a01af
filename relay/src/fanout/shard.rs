//! Shards: a firehose cut into parts by account, so that a consumer can read it in several streams. Pure.

/// One of `count` parts of all accounts. All events of an account are in the same part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: u32,
    count: u32,
}

impl Shard {
    /// Part `index` of `count`; `None` unless `index < count`.
    pub fn new(index: u32, count: u32) -> Option<Shard> {
        (index < count).then_some(Shard { index, count })
    }

    /// Whether an account, by its [`lane_hash`](atproto::syntax::Did::lane_hash), is in this part.
    pub fn holds(self, account: u64) -> bool {
        account % u64::from(self.count) == u64::from(self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_account_is_in_one_part() {
        assert_eq!((Shard::new(1, 1), Shard::new(0, 0), Shard::new(3, 2)), (None, None, None));
        for count in 1..9 {
            let shards: Vec<Shard> = (0..count).filter_map(|index| Shard::new(index, count)).collect();
            for account in [0, 1, 7, 8, u64::MAX] {
                assert_eq!(shards.iter().filter(|shard| shard.holds(account)).count(), 1, "{account} of {count}");
            }
        }
    }
}
