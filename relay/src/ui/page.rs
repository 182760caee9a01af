//! The status page's HTML. Pure.

use std::fmt::{self, Write};

use bytesize::ByteSize;
use runtime::span::Span;

use super::{
    html::{Escaped, Grouped, HOST_FORM, head, tile},
    status::{HostRow, Status},
};
use crate::{doors::ReasonCount, xrpc::params::encode};

const SCRIPT: &str = include_str!("page.js");

/// The whole page.
pub(super) fn whole(status: &Status) -> String {
    format!(
        "{}<header><h1>Mainstem</h1><p>An AT Protocol relay: one verified firehose of many hosts.</p></header>\
         <main id=\"moving\">{}</main>\
         <footer><h2>Connect</h2>\
         <p>The firehose: <code data-url=\"ws\">/xrpc/com.atproto.sync.subscribeRepos</code>. \
         Add <code>?cursor=SEQ</code> to go on after an event you have, <code>?cursor=0</code> for all that is kept.</p>\
         <p>On the command line: <code>mainstem tail <span data-url=\"origin\"></span></code>. \
         This page as JSON: <a href=\"/status.json\">status.json</a>.</p>\
         <p>Ask for your host to be relayed: <code>POST <span data-url=\"http\">/xrpc/com.atproto.sync.requestCrawl</span></code> \
         with <code>{{\"hostname\": \"pds.example.com\"}}</code>.</p>\
         <h2>Your host</h2><p>How it is read, and what was refused of it and why.</p>{HOST_FORM}</footer>\
         <script>{SCRIPT}</script></body></html>\n",
        head("Mainstem"),
        moving_part(status)
    )
}

/// The part that is fetched anew.
pub(super) fn moving_part(status: &Status) -> String {
    let mut html = String::with_capacity(8 << 10);
    // Writing to a String can't fail.
    let _ = write_moving_part(&mut html, status);
    html
}

fn write_moving_part(html: &mut String, status: &Status) -> fmt::Result {
    if status.simulated {
        html.push_str(
            "<p class=\"note\">The network behind this relay is simulated, in the same process: its hosts and accounts \
             are made up.</p>",
        );
    }
    for problem in &status.problems {
        write!(html, "<p class=\"note bad\">Not ready: {}.</p>", Escaped(&problem.message))?;
    }

    html.push_str("<section class=\"tiles\">");
    tile(html, "events a second", format_args!("{:.0}", status.events_per_second), "")?;
    let window = &status.window;
    let kept = (window.last + 1).saturating_sub(window.first);
    let seqs = if kept == 0 { "none yet".to_owned() } else { format!("{} … {}", window.first, window.last) };
    tile(html, "last seq", Grouped(window.last), "")?;
    let age = window.age_s.map(|age| format!("{}, ", Span(age))).unwrap_or_default();
    let size = ByteSize(window.bytes).display().si();
    tile(html, "events kept", Grouped(kept), format_args!("{age}{size}, {seqs}"))?;
    let away: u64 = status.turned_away.iter().map(|row| row.count).sum();
    tile(
        html,
        "subscribers",
        status.subscribers,
        format_args!("of {}; {} turned away", Grouped(status.subscribers_max as u64), Grouped(away)),
    )?;
    let connected = format_args!("{} connected", status.hosts_connected);
    tile(html, "hosts", Grouped(status.hosts_count as u64), connected)?;
    tile(html, "accounts", Grouped(status.repos), "")?;
    let identities = &status.identities;
    let state = match (identities.directory_is_silent, identities.waiting) {
        (true, waiting) => format!("the directory is silent, {} wait", Grouped(waiting)),
        (false, 0) => "none waits".to_owned(),
        (false, waiting) => format!("{} wait", Grouped(waiting)),
    };
    let rate = format_args!("{:.0} of {} lookups a second, {state}", identities.per_second, identities.per_second_max);
    tile(html, "identities", Grouped(identities.known), rate)?;
    let log = if window.full { "full" } else { "ok" };
    let waiting = ByteSize(status.intake_bytes).display().si();
    tile(html, "log", log, format_args!("{waiting} to be judged"))?;
    tile(html, "running for", Span(status.uptime_s), format_args!("version {}", Escaped(status.version)))?;
    html.push_str("</section>");

    write!(html, "<h2>Hosts</h2>")?;
    if status.hosts.is_empty() {
        html.push_str("<p>None yet. Name one with <code>--host pds.example.com</code>, or look at a simulated network with <code>mainstem run --simulate</code>.</p>");
    } else {
        html.push_str(
            "<div class=\"scroll\"><table><thead><tr><th>host</th><th>status</th><th class=\"n\">events/s</th>\
             <th class=\"n\">seq</th><th class=\"n\">accounts</th><th class=\"n\">refused</th></tr></thead><tbody>",
        );
        for host in &status.hosts {
            row(html, host)?;
        }
        html.push_str("</tbody></table></div>");
    }
    if let Some(next) = &status.hosts_next {
        write!(html, "<p><a href=\"/?after={}\">more hosts</a></p>", Escaped(next))?;
    }

    reasons(html, "Refused, by reason", status.refused.iter().map(|row| (row.reason, row.count)))?;
    fn counts(rows: &[ReasonCount]) -> impl Iterator<Item = (&str, u64)> {
        rows.iter().map(|row| (&*row.reason, row.count))
    }
    reasons(html, "Turned away at the doors", counts(&status.turned_away))?;
    reasons(html, "Subscribers that left, by reason", counts(&status.subscribers_ended))
}

fn reasons<'a>(html: &mut String, title: &str, rows: impl IntoIterator<Item = (&'a str, u64)>) -> fmt::Result {
    let mut rows = rows.into_iter().peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    write!(html, "<h2>{title}</h2><div class=\"scroll\"><table><tbody>")?;
    for (reason, count) in rows {
        write!(html, "<tr><td>{reason}</td><td class=\"n\">{}</td></tr>", Grouped(count))?;
    }
    html.push_str("</tbody></table></div>");
    Ok(())
}

fn row(html: &mut String, host: &HostRow) -> fmt::Result {
    let (link, name) = (encode(&host.name), Escaped(&host.name));
    write!(html, "<tr><td><a href=\"/host?hostname={link}\">{name}</a></td>")?;
    write!(html, "<td><i class=\"{status}\"></i>{status}", status = host.status)?;
    if let Some(why) = &host.last_end {
        write!(html, " <small>{}", Escaped(why))?;
        if let Some(seconds) = host.next_try_in_s {
            write!(html, "; next try in {}", Span(seconds))?;
        }
        html.push_str("</small>");
    }
    let seq = host.seq.map_or_else(|| "–".to_owned(), |seq| Grouped(seq).to_string());
    write!(
        html,
        "</td><td class=\"n\">{:.1}</td><td class=\"n\">{seq}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
        host.events_per_second,
        Grouped(host.accounts),
        Grouped(host.refused),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::status::{IdentitiesView, WindowView};

    #[test]
    fn texts_from_outside_are_escaped() {
        let evil = "<script>alert('\"&')</script>".to_owned();
        let status = Status {
            version: "1",
            simulated: false,
            uptime_s: 61,
            events_per_second: 12.4,
            subscribers: 2,
            subscribers_max: 1000,
            turned_away: vec![],
            subscribers_ended: vec![],
            limits_file: None,
            window: WindowView { first: 1, last: 1234567, bytes: 5 << 20, age_s: Some(100_000), full: false },
            intake_bytes: 0,
            repos: 1000,
            identities: IdentitiesView {
                known: 7,
                waiting: 0,
                per_second: 1.0,
                per_second_max: 200,
                hits: 1,
                misses: 1,
                directory_is_silent: false,
            },
            problems: vec![crate::admin::readiness::Problem { name: "x", message: evil.clone() }],
            refused: vec![],
            hosts_count: 1,
            hosts_connected: 0,
            hosts: vec![HostRow {
                name: evil.clone(),
                status: "offline",
                seq: None,
                accounts: 0,
                refused: 0,
                events_per_second: 0.0,
                next_try_in_s: Some(5),
                last_end: Some(evil.clone()),
            }],
            hosts_next: Some(evil),
        };
        let html = moving_part(&status);
        assert!(!html.contains("<script"), "{html}");
        assert_eq!(html.matches("&lt;script&gt;alert(&#39;&quot;&amp;&#39;)&lt;/script&gt;").count(), 4);
        assert!(html.contains("1\u{202f}234\u{202f}567"));
        assert!(html.contains("1 d 3 h"));
    }
}
