//! What all clients of Kafka have in common.

use std::time::{Duration, Instant};

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{Consumer, ConsumerContext},
    error::{KafkaError, KafkaResult},
    types::RDKafkaErrorCode,
};
use storage::{error::Error, lane::Lane};

use crate::config::{Kafka, SaslMechanism, Tls};

/// The largest record that a client sends or takes; topics allow less.
pub(crate) const RECORD_BYTES_MAX: usize = 8 << 20;

/// Settings that reach the brokers; `client_id` says in their logs who we are.
pub(crate) fn settings(kafka: &Kafka, client_id: &str) -> ClientConfig {
    let mut settings = ClientConfig::new();
    settings
        .set("bootstrap.servers", kafka.brokers.join(","))
        .set("client.id", client_id)
        .set("allow.auto.create.topics", "false")
        .set("socket.keepalive.enable", "true")
        // What is sent is small or in batches: nothing is to wait for more.
        .set("socket.nagle.disable", "true")
        // A broker that comes back is found at once.
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "1000")
        .set("topic.metadata.refresh.fast.interval.ms", "100")
        .set("message.max.bytes", RECORD_BYTES_MAX.to_string())
        .set("fetch.message.max.bytes", (1 << 20).to_string())
        .set("fetch.max.bytes", (32 << 20).to_string())
        .set("fetch.wait.max.ms", "250")
        .set("receive.message.max.bytes", (64 << 20).to_string())
        .set_log_level(RDKafkaLogLevel::Warning);
    let protocol = match (&kafka.tls, &kafka.sasl) {
        (None, None) => "plaintext",
        (Some(_), None) => "ssl",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    settings.set("security.protocol", protocol);
    if let Some(Tls { ca, own }) = &kafka.tls {
        if let Some(ca) = ca {
            settings.set("ssl.ca.location", ca.display().to_string());
        }
        if let Some(own) = own {
            settings.set("ssl.certificate.location", own.display().to_string());
            settings.set("ssl.key.location", own.display().to_string());
        }
    }
    if let Some(sasl) = &kafka.sasl {
        let mechanism = match sasl.mechanism {
            SaslMechanism::Plain => "PLAIN",
            SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
            SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
        };
        settings
            .set("sasl.mechanism", mechanism)
            .set("sasl.username", &sasl.login.user)
            .set("sasl.password", &sasl.login.password);
    }
    settings
}

/// What a client of a cluster's process calls itself: its role there, its machine and its process. Brokers' logs, and
/// `mainstem cluster status`, say so.
pub(crate) fn client_id(cluster: &str, role: &str) -> String {
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let machine = Some(machine.trim()).filter(|name| !name.is_empty()).unwrap_or("unnamed");
    format!("{cluster}.{role}.{machine}-{}", std::process::id())
}

/// A failure whose effect is not known: whoever sees it looks at what is durable before it goes on.
pub(crate) fn failed(what: &'static str) -> impl Fn(KafkaError) -> Error {
    move |error| Error::Indeterminate { what, source: error.into() }
}

/// Has a member of a group look at its heartbeat: librdkafka does so whenever it has something to do, else once a second,
/// however often it is set to. So it is asked something.
pub(crate) fn wake<C: ConsumerContext>(member: &impl Consumer<C>) {
    let _partitions = member.assignment();
}

/// Between two looks at a partition whose leader is just being chosen.
const LEADER_COMES: Duration = Duration::from_millis(100);

/// The first offset that a partition holds, and the one after its last. Where the partition is new, or its leader has just
/// gone, it is asked for again within the time. Blocks.
pub(crate) fn ends<C: ConsumerContext>(
    consumer: &impl Consumer<C>,
    topic: &str,
    partition: i32,
    within: Duration,
) -> KafkaResult<(i64, i64)> {
    let until = Instant::now() + within;
    loop {
        match consumer.fetch_watermarks(topic, partition, until.saturating_duration_since(Instant::now())) {
            Err(error) if has_no_leader_yet(&error) && Instant::now() + LEADER_COMES < until => {
                std::thread::sleep(LEADER_COMES);
            }
            result => return result,
        }
    }
}

/// As [`ends`], of all of a topic's partitions, in a few requests.
pub(crate) fn all_ends<C: ConsumerContext>(
    consumer: &impl Consumer<C>,
    topic: &str,
    partitions: i32,
    within: Duration,
) -> KafkaResult<Vec<(i64, i64)>> {
    let all = |which| {
        let mut asked = TopicPartitionList::new();
        asked.add_partition_range(topic, 0, partitions - 1);
        asked.set_all_offsets(which)?;
        let found = consumer.offsets_for_times(asked, within)?;
        let offset = |partition| {
            let place = found.find_partition(topic, partition);
            let place = place.ok_or(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownPartition))?;
            place.error()?;
            match place.offset() {
                Offset::Offset(offset) => Ok(offset),
                _none => Err(KafkaError::MetadataFetch(RDKafkaErrorCode::NoOffset)),
            }
        };
        (0..partitions).map(offset).collect::<KafkaResult<Vec<i64>>>()
    };
    // The end last, so that none is before its beginning.
    let lows = all(Offset::Beginning)?;
    Ok(lows.into_iter().zip(all(Offset::End)?).collect())
}

fn has_no_leader_yet(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::NotLeaderForPartition
                | Code::LeaderNotAvailable
                | Code::UnknownTopicOrPartition
                | Code::UnknownPartition
                | Code::UnknownTopic
        )
    )
}

/// A lane's partition.
pub(crate) fn partition(lane: Lane) -> i32 {
    i32::try_from(lane.0).expect("lanes are partitions")
}
