//! The rows on a real CQL server, without Kafka: a log in memory stands for the lanes.

#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod harness;
mod hosts;
mod outages;
mod repos;
mod schema;
mod speed;

/// The cases of the suite that are about rows alone.
mod suite {
    storage::conformance_suite!(@cases crate::harness::RowsAlone,
        repos: [
            shows_the_state_of_every_answered_append, keeps_every_field, last_event_of_a_batch_wins, lists_takedowns,
            lists_in_pages, counts_by_host, stays_after_reopening, stays_after_a_crash,
        ],
        hosts: [
            adds_a_host_once, rows_and_cursors_do_not_overwrite_each_other, ignores_unknown_hosts,
            lists_in_pages, keeps_the_policy, stays_after_reopening, stays_after_a_crash,
        ],
        identities: [
            finds_the_last_row_put, are_apart_from_repos, stays_after_reopening, are_whole_or_missing_after_a_crash,
        ],
    );
}
