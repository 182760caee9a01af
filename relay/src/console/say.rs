//! What the relay answers, said to people.

use serde_json::Value;

use super::table::{
    Side::{Left, Right},
    Table, bytes, facts, number, rate, seconds, text, time,
};

pub(super) fn hosts(answer: &Value) -> String {
    let mut table = Table::new(&[
        ("HOST", Left),
        ("STATUS", Left),
        ("ACCOUNTS", Right),
        ("EVENTS/S", Right),
        ("SEQ", Right),
        ("REFUSED", Right),
        ("CONNECTED", Right),
        ("NEXT TRY", Right),
        ("LAST END", Left),
    ]);
    let rows = items(answer, "hosts");
    for host in rows {
        let refused: u64 = items(host, "refused").iter().filter_map(|refused| refused["count"].as_u64()).sum();
        table.row(vec![
            text(&host["hostname"]),
            text(&host["status"]),
            number(&host["accountCount"]),
            rate(&host["eventsPerSecond"]),
            number(&host["seq"]),
            number(&refused.into()),
            seconds(&host["connectedForS"]),
            seconds(&host["nextTryInS"]),
            text(&host["lastEnd"]["cause"]),
        ]);
    }
    match rows {
        [] => "no host is like that\n".to_owned(),
        _ => table.text(),
    }
}

pub(super) fn host(host: &Value) -> String {
    let said = |before: &str, value: String| if value.is_empty() { value } else { format!("{before}{value}") };
    let last_end = match &host["lastEnd"] {
        Value::Null => String::new(),
        end => format!("{}, {}: {}", time(&end["atMicros"]), text(&end["cause"]), text(&end["detail"])),
    };
    let connection = match (host["connectedForS"].is_null(), host["nextTryInS"].is_null()) {
        (false, _) => said("open for ", seconds(&host["connectedForS"])),
        (true, false) => said("closed; tried again in ", seconds(&host["nextTryInS"])),
        (true, true) => "closed".to_owned(),
    };
    let mut said = facts(&[
        ("host", text(&host["hostname"])),
        ("status", text(&host["status"])),
        ("connection", connection),
        ("last end", last_end),
        ("read up to seq", number(&host["seq"])),
        ("seq resets", number(&host["epoch"])),
        ("last event", time(&host["lastEventAtMicros"])),
        ("events", format!("{}, {} a second now", number(&host["events"]), rate(&host["eventsPerSecond"]))),
        ("bytes", bytes(&host["bytes"])),
        ("being judged", number(&host["inFlight"])),
        ("accounts", number(&host["accountCount"])),
    ]);
    let refused = items(host, "refused");
    if !refused.is_empty() {
        let mut table = Table::new(&[("REFUSED FOR", Left), ("COUNT", Right), ("LAST EXAMPLE", Left)]);
        for refused in refused {
            table.row(vec![text(&refused["reason"]), number(&refused["count"]), text(&refused["example"])]);
        }
        said.push('\n');
        said.push_str(&table.text());
    }
    said
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
        ("ADDRESS", Left),
        ("CONNECTED", Right),
        ("SEQ", Right),
        ("LAG", Right),
        ("EVENTS", Right),
        ("SENT", Right),
        ("USER AGENT", Left),
    ]);
    let rows = items(answer, "subscribers");
    for subscriber in rows {
        let address = match &subscriber["forwardedFor"] {
            Value::Null => text(&subscriber["address"]),
            told => format!("{} (for {})", text(&subscriber["address"]), text(told)),
        };
        table.row(vec![
            number(&subscriber["id"]),
            address,
            seconds(&subscriber["connectedForS"]),
            number(&subscriber["seq"]),
            number(&subscriber["lag"]),
            number(&subscriber["eventsSent"]),
            bytes(&subscriber["bytesSent"]),
            text(&subscriber["userAgent"]),
        ]);
    }
    match rows {
        [] => "nobody is connected\n".to_owned(),
        _ => table.text(),
    }
}

pub(super) fn disconnected(subscriber: &Value) -> String {
    format!("subscriber {} is disconnected; it may come again\n", text(&subscriber["id"]))
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
            text(&entry["at"]),
            text(&entry["who"]),
            text(&entry["address"]),
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
