//! Who is in a group, and what the group has given to whom.

use std::time::Duration;

use rdkafka::{
    consumer::{BaseConsumer, Consumer},
    error::KafkaResult,
};

use crate::kafka::quiet::Quiet;

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What it calls itself: the cluster, the role, the machine and the process.
    pub client: String,
    /// Where it speaks from.
    pub address: String,
    /// The partitions that it has: lanes, shares of hosts, or the lead. Rising.
    pub partitions: Vec<i32>,
}

/// The members of a group, those with the most partitions first. While the group is being balanced nobody may have any.
pub(super) fn members(consumer: &BaseConsumer<Quiet>, group: &str, within: Duration) -> KafkaResult<Vec<Member>> {
    let groups = consumer.client().fetch_group_list(Some(group), within)?;
    let found = groups.groups().first().map_or(&[][..], |group| group.members());
    let mut members: Vec<Member> = found
        .iter()
        .map(|member| Member {
            client: member.client_id().to_owned(),
            address: member.client_host().trim_start_matches('/').to_owned(),
            partitions: member.assignment().and_then(partitions).unwrap_or_default(),
        })
        .collect();
    members.sort_by(|a, b| b.partitions.len().cmp(&a.partitions.len()).then_with(|| a.client.cmp(&b.client)));
    Ok(members)
}

/// The partitions in an assignment: a version (i16), and topics (an i32 of them), each a name (an i16 of bytes) and
/// partitions (an i32 of i32). Each of our groups is about one topic.
fn partitions(assignment: &[u8]) -> Option<Vec<i32>> {
    let mut rest = assignment.get(2..)?;
    let mut all = Vec::new();
    for _ in 0..number(&mut rest)? {
        let (length, behind) = rest.split_first_chunk()?;
        rest = behind.get(usize::try_from(i16::from_be_bytes(*length)).ok()?..)?;
        for _ in 0..number(&mut rest)? {
            all.push(number(&mut rest)?);
        }
    }
    all.sort_unstable();
    Some(all)
}

fn number(rest: &mut &[u8]) -> Option<i32> {
    let (number, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(i32::from_be_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_are_taken_apart() {
        let assignment = |partitions: &[i32]| {
            let mut bytes = vec![0, 3, 0, 0, 0, 1, 0, 5];
            bytes.extend(b"a.raw");
            bytes.extend(i32::try_from(partitions.len()).unwrap().to_be_bytes());
            partitions.iter().for_each(|partition| bytes.extend(partition.to_be_bytes()));
            // What the client has added for itself.
            bytes.extend([0, 0, 0, 0]);
            bytes
        };
        assert_eq!(partitions(&assignment(&[3, 1, 2])), Some(vec![1, 2, 3]));
        assert_eq!(partitions(&assignment(&[])), Some(vec![]));
        assert_eq!(partitions(&[0, 3, 0, 0, 0, 0]), Some(vec![]));
        let whole = assignment(&[7]);
        for length in 0..whole.len() - 4 {
            assert_eq!(partitions(&whole[..length]), None, "{length} bytes");
        }
    }
}
