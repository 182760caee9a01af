//! What the relay answers, said to people.

use std::net::SocketAddr;

use serde_json::Value;

use super::table::{
    Side::{Left, Right},
    Table, bytes, facts, number, rate, seconds, text, time,
};

/// Limits in words, and their names in the API.
const LIMITS: [(&str, &str); 5] = [
    ("events a second", "eventsPerSecond"),
    ("events an hour", "eventsPerHour"),
    ("events a day", "eventsPerDay"),
    ("bytes a second", "bytesPerSecond"),
    ("accounts", "accountsMax"),
];

pub(super) fn hosts(answer: &Value) -> String {
    let mut table = Table::new(&[
        ("HOST", Left),
        ("STATUS", Left),
        ("ACCOUNTS", Right),
        ("EVENTS/S", Right),
        ("SEQ", Right),
        ("REFUSED/DAY", Right),
        ("CONNECTED", Right),
        ("NEXT TRY", Right),
        ("LAST END", Left),
    ]);
    let rows = items(answer, "hosts");
    for host in rows {
        let next_try = match host["nextTryInS"].as_u64() {
            Some(0) => "now".to_owned(),
            Some(_) | None => seconds(&host["nextTryInS"]),
        };
        let refused: u64 = items(host, "refused").iter().filter_map(|refused| refused["lastDay"].as_u64()).sum();
        table.row(vec![
            text(&host["hostname"]),
            text(&host["status"]),
            number(&host["accountCount"]),
            rate(&host["eventsPerSecond"]),
            number(&host["seq"]),
            number(&refused.into()),
            seconds(&host["connectedForS"]),
            next_try,
            text(&host["lastEnd"]["cause"]),
        ]);
    }
    match rows {
        [] => "no host is like that\n".to_owned(),
        _ => table.text(),
    }
}

pub(super) fn host(host: &Value) -> String {
    let last_end = match &host["lastEnd"] {
        Value::Null => String::new(),
        end => format!("{}, {}: {}", time(&end["atMicros"]), text(&end["cause"]), text(&end["detail"])),
    };
    let throttled = match &host["throttled"] {
        Value::Null => String::new(),
        over => {
            format!("over {} {}, until {}", number(&over["limit"]), rate_words(&over["by"]), time(&over["untilMicros"]))
        }
    };
    let last_reset = match &host["lastReset"] {
        Value::Null => String::new(),
        reset => {
            let seq = |seq: &Value| if seq.is_null() { "live".to_owned() } else { format!("seq {}", number(seq)) };
            let cause = match reset["cause"].as_str() {
                Some("future_cursor") => "the host said that our cursor is ahead of it",
                Some("seq_went_back") => "the host sent a lower seq",
                Some("rewound") => "rewound by an operator",
                Some(_) | None => "for a reason unknown to this program",
            };
            format!(
                "{}, {cause}: from {} to {}",
                time(&reset["atMicros"]),
                seq(&reset["fromSeq"]),
                seq(&reset["toSeq"])
            )
        }
    };
    let added_by = match host["addedBy"].as_str() {
        Some("request") => "a requestCrawl",
        Some(_) | None => "the operator",
    };
    let accounts = match host["accountsThrottled"].as_u64() {
        None | Some(0) => number(&host["accountCount"]),
        Some(_) => {
            format!("{}, {} of them over its cap", number(&host["accountCount"]), number(&host["accountsThrottled"]))
        }
    };
    let mut said = facts(&[
        ("host", text(&host["hostname"])),
        ("status", text(&host["status"])),
        ("", text(&host["state"])),
        ("throttled", throttled),
        ("last end", last_end),
        ("failures in a row", if host["failures"] == 0 { String::new() } else { number(&host["failures"]) }),
        ("connections", format!("{} of {} tries", number(&host["connections"]), number(&host["tries"]))),
        ("read up to seq", number(&host["seq"])),
        ("seq resets", number(&host["epoch"])),
        ("last reset", last_reset),
        ("last event", time(&host["lastEventAtMicros"])),
        ("events", format!("{}, {} a second now", number(&host["events"]), rate(&host["eventsPerSecond"]))),
        ("bytes", bytes(&host["bytes"])),
        ("being judged", number(&host["inFlight"])),
        ("accounts", accounts),
        ("limits", limits_in_a_line(&host["limits"])),
        ("added", format!("{}, by {}", time(&host["addedAtMicros"]), added_by)),
    ]);
    let refused = items(host, "refused");
    if refused.is_empty() {
        return said;
    }
    let mut table = Table::new(&[
        ("REFUSED FOR", Left),
        ("HOUR", Right),
        ("DAY", Right),
        ("IN ALL", Right),
        ("LAST ONE", Left),
        ("OF", Left),
    ]);
    for refused in refused {
        let example = &refused["example"];
        table.row(vec![
            text(&refused["reason"]),
            number(&refused["lastHour"]),
            number(&refused["lastDay"]),
            number(&refused["total"]),
            time(&example["atMicros"]),
            text(&example["did"]),
        ]);
    }
    said.push_str(&format!("\n{}", table.text()));
    for refused in refused {
        let example = &refused["example"];
        let place = [
            text(&example["kind"]),
            said_of("seq ", &example["seq"]),
            said_of("rev ", &example["rev"]),
            text(&example["path"]),
        ];
        let place = place.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
        said.push_str(&format!("\n{}: {}\n", text(&refused["reason"]), text(&refused["meaning"])));
        said.push_str(&facts(&[
            ("  last one", place),
            ("  came", text(&example["came"])),
            ("  expected", text(&example["expected"])),
            ("  to be done", text(&refused["remedy"])),
        ]));
    }
    said
}

/// The limits in force, those without limit left out.
fn limits_in_a_line(limits: &Value) -> String {
    let named = LIMITS.iter().filter(|(_, field)| !limits[*field].is_null());
    let said: Vec<_> = named.map(|(name, field)| format!("{} {name}", number(&limits[*field]))).collect();
    let from = match (&limits["exception"], &limits["rule"]) {
        (Value::Object(_), _) => " (with an exception: hosts limits)".to_owned(),
        (_, Value::String(rule)) => format!(" (the rule for {rule})"),
        (_, _) => String::new(),
    };
    if said.is_empty() { format!("none{from}") } else { format!("{}{from}", said.join(", ")) }
}

/// A rate's name in words.
fn rate_words(by: &Value) -> &'static str {
    match by.as_str() {
        Some("events_per_second") => "events a second",
        Some("events_per_hour") => "events an hour",
        Some("events_per_day") => "events a day",
        Some("bytes_per_second") => "bytes a second",
        Some(_) | None => "of a rate",
    }
}

pub(super) fn host_added(host: &Value) -> String {
    match host["status"].as_str() {
        Some("banned") => {
            format!("{0} is known, but banned; mainstem admin hosts unban {0}\n", text(&host["hostname"]))
        }
        Some(_) | None => format!(
            "{0} is read from now on, after restarts too; how it goes: mainstem admin hosts show {0}\n",
            text(&host["hostname"])
        ),
    }
}

pub(super) fn host_rewound(host: &Value) -> String {
    // Its cursor may have moved again meanwhile.
    let seq = &host["lastReset"]["toSeq"];
    let place = match seq.as_u64() {
        None | Some(0) => "from its oldest event".to_owned(),
        Some(_) => format!("after seq {}", number(seq)),
    };
    let name = text(&host["hostname"]);
    format!("{name} is read again {place}; what was accepted before is known as a repeat\n")
}

pub(super) fn host_banned(host: &Value) -> String {
    format!("{0} is banned: it is not read any more, until: mainstem admin hosts unban {0}\n", text(&host["hostname"]))
}

pub(super) fn host_unbanned(host: &Value) -> String {
    let name = text(&host["hostname"]);
    match host["status"].as_str() {
        Some("banned") => {
            format!("{name} is banned itself no more, but its domain is: mainstem admin domains list\n")
        }
        Some(_) | None => format!("{name} is banned no more: it is read on from where it was\n"),
    }
}

/// A value behind its name, or nothing.
fn said_of(name: &str, value: &Value) -> String {
    if value.is_null() { String::new() } else { format!("{name}{}", text(value)) }
}

pub(super) fn limits(limits: &Value) -> String {
    let source = match (&limits["rule"], limits["source"].as_str()) {
        (Value::String(rule), _) => format!("the rule for {rule}"),
        (_, Some("local")) => "none: local hosts have no limits with --dev".to_owned(),
        (_, _) => "the default: no rule fits".to_owned(),
    };
    let mut said = facts(&[("host", text(&limits["hostname"])), ("rule", source)]);
    let mut table = Table::new(&[("LIMIT", Left), ("IN FORCE", Right), ("EXCEPTION", Right)]);
    for (name, field) in LIMITS {
        let in_force = match &limits["inForce"][field] {
            Value::Null => "unlimited".to_owned(),
            limit => number(limit),
        };
        let exception = match &limits["exception"][field] {
            limit @ Value::Number(_) => number(limit),
            limit => text(limit),
        };
        table.row(vec![name.to_owned(), in_force, exception]);
    }
    said.push_str(&format!("\n{}", table.text()));
    said
}

pub(super) fn domains(answer: &Value) -> String {
    let mut table = Table::new(&[("DOMAIN", Left), ("BANNED", Left), ("KNOWN HOSTS", Right)]);
    let rows = items(answer, "domains");
    for ban in rows {
        table.row(vec![text(&ban["domain"]), time(&ban["bannedAtMicros"]), number(&ban["hosts"])]);
    }
    match rows {
        [] => "no domain is banned\n".to_owned(),
        _ => table.text(),
    }
}

pub(super) fn domain_banned(ban: &Value) -> String {
    format!(
        "no host of {} is read any more; {} of those known are in it\n",
        text(&ban["domain"]),
        number(&ban["hosts"])
    )
}

pub(super) fn domain_unbanned(ban: &Value) -> String {
    format!(
        "{} is banned no more; hosts in it that are banned themselves stay so ({} are known)\n",
        text(&ban["domain"]),
        number(&ban["hosts"])
    )
}

pub(super) fn request_crawl(rules: &Value) -> String {
    let accepted = match rules["accepted"].as_bool() {
        Some(true) => "on: requests for hosts that are not known are taken",
        Some(false) | None => "off: requests for hosts that are not known are turned down",
    };
    facts(&[
        ("requestCrawl", accepted.to_owned()),
        ("quota a day", format!("{} new hosts", number(&rules["newHostsPerDay"]))),
        ("of one domain", format!("{} new hosts", number(&rules["newHostsPerDayAndDomain"]))),
        ("last 24 hours", format!("{} new hosts", number(&rules["newHostsLastDay"]))),
    ])
}

pub(super) fn account(account: &Value) -> String {
    let served = if account["active"] == true { "served" } else { "not served" };
    let mut said = facts(&[
        ("account", text(&account["did"])),
        ("status", format!("{} ({served})", text(&account["status"]))),
        ("by its host", text(&account["upstreamStatus"])),
        ("by this relay", text(&account["localStatus"])),
        ("host", text(&account["hostname"])),
        ("host's seq", format!("{}, epoch {}", number(&account["upstreamSeq"]), number(&account["hostEpoch"]))),
        ("rev", text(&account["rev"])),
        ("commit", text(&account["commit"])),
        ("data", text(&account["data"])),
    ]);
    said.push('\n');
    said.push_str(&match &account["identity"] {
        Value::Null => "no identity is cached; re-resolve fetches it\n".to_owned(),
        identity => self::identity(identity),
    });
    if let (Some(host), Some(pds)) = (account["hostname"].as_str(), account["identity"]["pds"].as_str())
        && host != pds
    {
        said.push_str(
            "\nits events came from another host than its identity names: it has moved, or its identity is old\n",
        );
    }
    said
}

pub(super) fn account_taken_down(account: &Value) -> String {
    format!(
        "{0} is taken down: nothing of it is served, live or from replay, until: mainstem admin accounts restore {0}\n",
        text(&account["did"])
    )
}

pub(super) fn account_restored(account: &Value) -> String {
    format!(
        "{} is not taken down by this relay; it is {}, as its host says\n",
        text(&account["did"]),
        text(&account["status"])
    )
}

pub(super) fn identity(identity: &Value) -> String {
    let or_none = |value: &Value| if value.is_null() { "none".to_owned() } else { text(value) };
    if !identity["absence"].is_null() {
        return facts(&[
            ("identity", format!("none: {}", text(&identity["absence"]))),
            ("fetched", time(&identity["fetchedAtMicros"])),
        ]);
    }
    facts(&[
        ("pds", or_none(&identity["pds"])),
        ("handle", or_none(&identity["handle"])),
        ("signing key", or_none(&identity["signingKey"])),
        ("fetched", time(&identity["fetchedAtMicros"])),
    ])
}

pub(super) fn subscribers(answer: &Value) -> String {
    let mut table = Table::new(&[
        ("ID", Right),
        ("CLIENT", Left),
        ("TOKEN", Left),
        ("CONNECTED", Right),
        ("SEQ", Right),
        ("LAG", Right),
        ("EVENTS", Right),
        ("SENT", Right),
        ("SHARD", Right),
        ("COMPRESSED", Left),
        ("USER AGENT", Left),
    ]);
    let rows = items(answer, "subscribers");
    for subscriber in rows {
        table.row(vec![
            number(&subscriber["id"]),
            text(&subscriber["client"]),
            text(&subscriber["token"]),
            seconds(&subscriber["connectedForS"]),
            number(&subscriber["seq"]),
            number(&subscriber["lag"]),
            number(&subscriber["eventsSent"]),
            bytes(&subscriber["bytesSent"]),
            text(&subscriber["shard"]),
            if subscriber["compressed"] == true { "yes" } else { "" }.to_owned(),
            text(&subscriber["userAgent"]),
        ]);
    }
    let mut said = match rows {
        [] => "nobody is connected\n".to_owned(),
        _ => table.text(),
    };
    let most = |max: &Value| if max.is_null() { "any number".to_owned() } else { number(max) };
    said.push_str(&format!(
        "\n{} connected; {} may be without a token, {} from one address\n",
        rows.len(),
        most(&answer["max"]),
        most(&answer["perAddressMax"])
    ));
    for (name, what) in [("refused", "refused since the start"), ("ended", "ended since the start")] {
        let reasons = items(answer, name).iter();
        let reasons: Vec<_> =
            reasons.map(|row| format!("{} {}", text(&row["reason"]), number(&row["count"]))).collect();
        if !reasons.is_empty() {
            said.push_str(&format!("{what}: {}\n", reasons.join(", ")));
        }
    }
    said + &turned_away(items(answer, "turnedAway"))
}

fn turned_away(rows: &[Value]) -> String {
    let mut table =
        Table::new(&[("CLIENT", Left), ("TOKEN", Left), ("REASON", Left), ("TIMES", Right), ("LAST", Left)]);
    for row in rows {
        table.row(vec![
            text(&row["client"]),
            text(&row["token"]),
            text(&row["reason"]),
            number(&row["count"]),
            time(&row["lastAtMicros"]),
        ]);
    }
    if rows.is_empty() { String::new() } else { format!("\nturned away of late:\n{}", table.text()) }
}

pub(super) fn disconnected(subscriber: &Value) -> String {
    format!("subscriber {} is disconnected; it may come again\n", text(&subscriber["id"]))
}

pub(super) fn coverage(answer: &Value) -> String {
    let peers = items(answer, "peers");
    if peers.is_empty() {
        return "there is nobody to compare with; name other relays with --coverage-peer\n".to_owned();
    }
    let mut table = Table::new(&[
        ("PEER", Left),
        ("LAST ROUND", Left),
        ("HOSTS", Right),
        ("MISSING", Right),
        ("ACCOUNTS", Right),
        ("HERE", Right),
        ("REPOS LOOKED UP", Right),
        ("MISSING", Right),
        ("FAILURES", Right),
    ]);
    for peer in peers {
        let last_round = match &peer["lastRoundAtMicros"] {
            Value::Null => "none yet".to_owned(),
            at => time(at),
        };
        table.row(vec![
            text(&peer["peer"]),
            last_round,
            number(&peer["hosts"]["there"]),
            number(&peer["hosts"]["missing"]),
            number(&peer["hosts"]["accountsThere"]),
            number(&peer["hosts"]["accountsHere"]),
            number(&peer["repos"]["looked"]),
            number(&peer["repos"]["missing"]),
            number(&peer["failures"]),
        ]);
    }
    let mut said = table.text();
    for peer in peers {
        said.push_str(&missing(peer));
    }
    said
}

/// What is wrong with a peer, and what of it is missing.
fn missing(peer: &Value) -> String {
    let mut said = String::new();
    if let Value::Object(failure) = &peer["lastFailure"] {
        let when = time(&failure["atMicros"]);
        said.push_str(&format!("\n{}", facts(&[(&*format!("last failure, {when}"), text(&failure["why"]))])));
    }
    let mut table = Table::new(&[("HOST MISSING", Left), ("ACCOUNTS", Right), ("HERE", Left), ("PEER", Left)]);
    let hosts = items(&peer["hosts"], "examples");
    for host in hosts {
        table.row(vec![
            text(&host["hostname"]),
            number(&host["accountCount"]),
            text(&host["here"]),
            text(&peer["peer"]),
        ]);
    }
    if !hosts.is_empty() {
        said.push_str(&format!("\n{}", table.text()));
    }
    let mut table = Table::new(&[("REPO MISSING", Left), ("LOOKED UP", Left), ("PEER", Left)]);
    let repos = items(&peer["repos"], "examples");
    for repo in repos {
        table.row(vec![text(&repo["did"]), time(&repo["atMicros"]), text(&peer["peer"])]);
    }
    if !repos.is_empty() {
        said.push_str(&format!("\n{}", table.text()));
    }
    said
}

pub(super) fn changes(answer: &Value) -> String {
    let mut table = Table::new(&[
        ("ID", Right),
        ("WHEN", Left),
        ("WHO", Left),
        ("FROM", Left),
        ("WHAT", Left),
        ("OF", Left),
        ("WITH", Left),
        ("RESULT", Left),
    ]);
    let rows = items(answer, "entries");
    for entry in rows {
        let result = match &entry["message"] {
            Value::Null => text(&entry["result"]),
            message => format!("{}: {}", text(&entry["result"]), text(message)),
        };
        table.row(vec![
            text(&entry["id"]),
            text(&entry["at"]).replace('T', " "),
            text(&entry["who"]),
            text(&entry["address"])
                .parse()
                .map_or_else(|_| text(&entry["address"]), |at: SocketAddr| at.ip().to_string()),
            text(&entry["operation"]),
            text(&entry["target"]),
            text(&entry["body"]),
            result,
        ]);
    }
    let mut said = match rows {
        [] => "nothing was changed yet\n".to_owned(),
        _ => table.text(),
    };
    if let Some(before) = answer["before"].as_u64() {
        said.push_str(&format!("older ones: mainstem admin audit --before {before}\n"));
    }
    said
}

fn items<'a>(answer: &'a Value, name: &str) -> &'a [Value] {
    answer[name].as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_missing_is_said_peer_by_peer() {
        assert!(coverage(&json!({"peers": []})).contains("--coverage-peer"));
        let peer = json!({
            "peer": "relay.test", "rounds": 3, "lastRoundAtMicros": 5_000_000, "failures": 1,
            "lastFailure": {"atMicros": 1_000_000, "why": "no\u{1b}[2J answer"},
            "hosts": {"there": 1_234, "missing": 1, "accountsThere": 9, "accountsHere": 8,
                "examples": [{"hostname": "pds.test", "accountCount": 7, "here": "offline"}]},
            "repos": {"looked": 3_000, "missing": 1, "laps": 0, "examples": [{"did": "did:plc:x", "atMicros": 5_000_000}]},
        });
        assert_eq!(
            coverage(&json!({"peers": [peer]})),
            "\
PEER        LAST ROUND            HOSTS  MISSING  ACCOUNTS  HERE  REPOS LOOKED UP  MISSING  FAILURES
relay.test  1970-01-01 00:00:05Z  1,234        1         9     8            3,000        1         1

last failure, 1970-01-01 00:00:01Z  no\u{fffd}[2J answer

HOST MISSING  ACCOUNTS  HERE     PEER
pds.test             7  offline  relay.test

REPO MISSING  LOOKED UP             PEER
did:plc:x     1970-01-01 00:00:05Z  relay.test
"
        );
    }

    #[test]
    fn who_reads_a_part_or_compressed_is_shown_so() {
        let one = |id: u64, shard: Option<&str>, compressed: bool| json!({"id": id, "shard": shard, "compressed": compressed, "userAgent": "reader"});
        let said = subscribers(&json!({"subscribers": [one(7, None, false), one(8, Some("1/4"), true)]}));
        let row = |number: usize| said.lines().nth(number).unwrap().split_whitespace().collect::<Vec<_>>();
        assert_eq!(row(0)[8..11], ["SHARD", "COMPRESSED", "USER"]);
        assert_eq!((row(1), row(2)), (vec!["7", "reader"], vec!["8", "1/4", "yes", "reader"]));
    }
}
