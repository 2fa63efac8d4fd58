//! Who holds which partition, as the group's coordinator tells it.
//!
//! A member's assignment is bytes in the framing of Kafka's consumer protocol (`ConsumerProtocolAssignment`): a version, the topics
//! with their partitions, and data of the assignor, which is left alone.

use std::collections::BTreeMap;

use rdkafka::ClientContext;
use rdkafka::client::Client;
use schemas::Source;

use super::ANSWER_WITHIN;
use super::options::KafkaOptions;
use crate::log::LogError;

/// The members' client ids by the sources that they hold.
pub(super) fn ask<C: ClientContext>(client: &Client<C>, options: &KafkaOptions) -> Result<BTreeMap<Source, String>, LogError> {
    let groups = client.fetch_group_list(Some(&options.group), ANSWER_WITHIN);
    let groups = groups.map_err(|error| LogError::Unavailable(format!("the group {} cannot be asked for: {error}", options.group)))?;
    let mut owners = BTreeMap::new();
    for member in groups.groups().iter().filter(|group| group.name() == options.group).flat_map(|group| group.members()) {
        let held = member.assignment().and_then(|bytes| partitions_of(bytes, &options.topic)).unwrap_or_default();
        owners.extend(held.into_iter().map(|source| (source, member.client_id().to_owned())));
    }
    Ok(owners)
}

/// The partitions of `topic` in an assignment; none if it is cut short.
fn partitions_of(assignment: &[u8], topic: &str) -> Option<Vec<Source>> {
    let mut bytes = Bytes(assignment);
    let mut held = Vec::new();
    let _version = bytes.take::<2>()?;
    for _ in 0..bytes.count()? {
        let name_len = usize::from(u16::from_be_bytes(bytes.take()?));
        let name = bytes.slice(name_len)?;
        for _ in 0..bytes.count()? {
            let partition = u32::from_be_bytes(bytes.take()?);
            if name == topic.as_bytes() {
                held.push(Source(partition));
            }
        }
    }
    Some(held)
}

/// What is left to read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn slice(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.slice(N)?.try_into().ok()
    }

    /// The length of an array; -1 is an absent one.
    fn count(&mut self) -> Option<u32> {
        let count = i32::from_be_bytes(self.take()?);
        Some(u32::try_from(count).unwrap_or(0))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "in a test a failed expectation is a panic")]
mod tests {
    use super::*;

    fn encoded(topics: &[(&str, &[u32])]) -> Vec<u8> {
        let count = |n: usize| u32::try_from(n).unwrap().to_be_bytes();
        let mut bytes = vec![0, 1];
        bytes.extend(count(topics.len()));
        for (name, partitions) in topics {
            bytes.extend(u16::try_from(name.len()).unwrap().to_be_bytes());
            bytes.extend(name.as_bytes());
            bytes.extend(count(partitions.len()));
            partitions.iter().for_each(|partition| bytes.extend(partition.to_be_bytes()));
        }
        bytes.extend([0xff; 4]);
        bytes
    }

    #[test]
    fn an_assignment_is_read_for_its_topic() {
        let bytes = encoded(&[("other", &[7]), ("views", &[0, 2, 300]), ("last", &[])]);
        assert_eq!(partitions_of(&bytes, "views").unwrap(), [Source(0), Source(2), Source(300)]);
        assert_eq!(partitions_of(&bytes, "absent").unwrap(), []);
        assert_eq!(partitions_of(&encoded(&[]), "views").unwrap(), []);
        assert_eq!(partitions_of(&[0, 0, 0xff, 0xff, 0xff, 0xff], "views").unwrap(), []);
    }

    #[test]
    fn an_assignment_that_is_cut_short_says_nothing() {
        let bytes = encoded(&[("views", &[0, 2])]);
        for len in 0..bytes.len() - 4 {
            assert_eq!(partitions_of(&bytes[..len], "views"), None, "{len}");
        }
    }
}
