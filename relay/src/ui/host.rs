//! The HTML of a host's page. Pure.

use std::fmt::{self, Display, Write};

use bytesize::ByteSize;
use jiff::Timestamp;
use runtime::span::Span;

use super::html::{Escaped, Grouped, HOST_FORM, head, tile};
use crate::{
    host_view::{ExampleView, HostView, RefusedView},
    xrpc::params::encode,
};

/// The page of a host that is known.
pub(super) fn page(host: &HostView) -> String {
    let mut html = head(&host.hostname);
    // Writing to a String can't fail.
    let _ = write_page(&mut html, host);
    html.push_str("</body></html>\n");
    html
}

/// The page of one that is not.
pub(super) fn unknown(wanted: &str) -> String {
    let wanted = Escaped(wanted);
    format!(
        "{}<header><h1>{wanted}</h1><p>This <a href=\"/\">relay</a> does not know that host.</p></header><main>\
         <p>Ask for it to be read: <code>POST /xrpc/com.atproto.sync.requestCrawl</code> with \
         <code>{{\"hostname\": \"{wanted}\"}}</code>. A PDS does so by itself for the relays that it is told of.</p>\
         <p>Or look for another.</p>{HOST_FORM}</main></body></html>\n",
        head("Unknown host")
    )
}

/// The page where no host is named, or what is named can't be one.
pub(super) fn unreadable(wanted: &str) -> String {
    let fault = match wanted {
        "" => String::new(),
        _ => format!("<p class=\"note bad\">{} is not a host's name.</p>", Escaped(wanted)),
    };
    format!(
        "{}<header><h1>A host</h1><p>How this <a href=\"/\">relay</a> reads it, and what was refused of it and why.</p>\
         </header><main>{fault}{HOST_FORM}</main></body></html>\n",
        head("A host")
    )
}

fn write_page(html: &mut String, host: &HostView) -> fmt::Result {
    let name = Escaped(&host.hostname);
    write!(html, "<header><h1>{name}</h1><p>How this <a href=\"/\">relay</a> reads the host.</p></header><main>")?;
    write!(html, "<p class=\"note {}\">{}</p>", host.status, Escaped(&host.state))?;

    html.push_str("<section class=\"tiles\">");
    tile(html, "status", host.status, "")?;
    tile(html, "events a second", format_args!("{:.1}", host.events_per_second), "")?;
    let seq = host.seq.map_or_else(|| "–".to_owned(), |seq| Grouped(seq).to_string());
    tile(html, "read up to seq", seq, format_args!("{} being judged", host.in_flight))?;
    let throttled = Shown(host.accounts_throttled > 0, format_args!("{} over the cap", host.accounts_throttled));
    tile(html, "accounts", Grouped(host.account_count), throttled)?;
    let bytes = format!("{}, in {}", ByteSize(host.bytes).display().si(), Span(host.uptime_s));
    tile(html, "events", Grouped(host.events), bytes)?;
    let sum = |of: fn(&RefusedView) -> u64| host.refused.iter().map(of).sum::<u64>();
    let day = sum(|refused| refused.last_day);
    tile(
        html,
        "refused in the last hour",
        Grouped(sum(|refused| refused.last_hour)),
        format_args!("{day} in the last day"),
    )?;
    html.push_str("</section>");

    html.push_str("<h2>Refused, by reason</h2>");
    if host.refused.is_empty() {
        write!(html, "<p>Nothing since the relay was started, {} ago.</p>", Span(host.uptime_s))?;
    } else {
        write_refusals(html, host)?;
    }
    write_limits(html, host)?;
    write_stream(html, host)?;
    let link = encode(&host.hostname);
    write!(html, "<p>As JSON: <a href=\"/host.json?hostname={link}\">host.json</a>.</p></main>")
}

fn write_refusals(html: &mut String, host: &HostView) -> fmt::Result {
    html.push_str(
        "<p>A refused event is not passed on, and the host is read on; the stream is not closed. Each reason is explained \
         below, with the last event that was refused for it. Counted since the relay was started.</p><div class=\"scroll\"><table><thead><tr><th>reason</th>\
         <th class=\"n\">last hour</th><th class=\"n\">last day</th>",
    );
    html.push_str("<th class=\"n\">all</th></tr></thead><tbody>");
    for RefusedView { reason, last_hour, last_day, total, .. } in &host.refused {
        write!(html, "<tr><td><a href=\"#{reason}\">{reason}</a></td>")?;
        for count in [last_hour, last_day, total] {
            write!(html, "<td class=\"n\">{}</td>", Grouped(*count))?;
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></div>");
    host.refused.iter().try_for_each(|refused| write_refused(html, refused, host.now_micros))
}

fn write_refused(html: &mut String, refused: &RefusedView, now_micros: u64) -> fmt::Result {
    let RefusedView { reason, meaning, remedy, example, .. } = refused;
    let (meaning, remedy) = (Escaped(meaning), Escaped(remedy));
    write!(
        html,
        "<section class=\"card\" id=\"{reason}\"><h3><code>{reason}</code> {meaning}</h3><p>{remedy}</p><dl>"
    )?;
    let ExampleView { at_micros, kind, seq, did, rev, path, came, expected } = example;
    row(html, "last", Ago(*at_micros, now_micros))?;
    let seq = seq.map(|seq| format!(" with seq {seq}")).unwrap_or_default();
    row(html, "event", format_args!("{}{seq}", kind.unwrap_or("a message that can't be read")))?;
    for (term, text) in [("account", did), ("rev", rev), ("path", path)] {
        if let Some(text) = text {
            row(html, term, Escaped(text))?;
        }
    }
    row(html, "what came", Escaped(came))?;
    row(html, "expected", Escaped(expected))?;
    html.push_str("</dl></section>");
    Ok(())
}

fn write_limits(html: &mut String, host: &HostView) -> fmt::Result {
    let limits = &host.limits;
    html.push_str("<h2>Limits</h2><p>What is over a rate is read later; nothing is lost.</p><dl>");
    let rates = [
        ("events a second", limits.events_per_second),
        ("events an hour", limits.events_per_hour),
        ("events a day", limits.events_per_day),
        ("bytes a second", limits.bytes_per_second),
        ("accounts", limits.accounts_max),
    ];
    for (of, limit) in rates {
        match limit {
            Some(limit) => row(html, of, format_args!("at most {}", Grouped(limit)))?,
            None => row(html, of, "unlimited")?,
        }
    }
    if host.accounts_throttled > 0 {
        let over = Grouped(host.accounts_throttled);
        row(
            html,
            "over the cap",
            format_args!(
                "{over} accounts: their events are refused as <code>account_throttled</code> until this relay's operator \
                 raises the cap or other accounts leave"
            ),
        )?;
    }
    let from = limits.rule.as_deref().map_or_else(|| "the default".to_owned(), |rule| format!("the rule for {rule}"));
    let except = if limits.exception.is_some() { ", with an exception for this host" } else { "" };
    row(html, "by", format_args!("{}{except}", Escaped(&from)))?;
    html.push_str("</dl>");
    Ok(())
}

fn write_stream(html: &mut String, host: &HostView) -> fmt::Result {
    html.push_str("<h2>Stream</h2><dl>");
    row(html, "known since", format_args!("{}", Ago(host.added_at_micros, host.now_micros)))?;
    let (made, tried) = (Grouped(host.connections), Grouped(host.tries));
    row(html, "connections", format_args!("{made}, of {tried} tries, in {}", Span(host.uptime_s)))?;
    if let Some(end) = &host.last_end {
        let ago = Ago(end.at_micros, host.now_micros);
        row(html, "last end", format_args!("{ago}: {} ({})", Escaped(&end.detail), end.cause))?;
    }
    row(html, "epoch", format_args!("{}: how often it was not read on from where it had been", host.epoch))?;
    if let Some(reset) = &host.last_reset {
        let ago = Ago(reset.at_micros, host.now_micros);
        let had = reset.from_seq.map_or_else(|| "nothing".to_owned(), |seq| format!("seq {}", Grouped(seq)));
        let then = reset.to_seq.map_or_else(|| "live".to_owned(), |seq| format!("after seq {}", Grouped(seq)));
        let meaning = Escaped(reset.meaning);
        row(html, "last reset", format_args!("{ago}: {meaning}; it had been read up to {had} and was read on {then}"))?;
    }
    html.push_str("</dl>");
    Ok(())
}

fn row(html: &mut String, term: &str, text: impl Display) -> fmt::Result {
    write!(html, "<dt>{term}</dt><dd>{text}</dd>")
}

/// Something, or nothing.
struct Shown<T>(bool, T);

impl<T: Display> Display for Shown<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 { self.1.fmt(f) } else { Ok(()) }
    }
}

/// A time before another, both in microseconds since the Unix epoch: how long before, and when.
struct Ago(u64, u64);

impl Display for Ago {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ago(at_micros, now_micros) = *self;
        write!(f, "{} ago", Span(now_micros.saturating_sub(at_micros) / 1_000_000))?;
        let at = i64::try_from(at_micros / 1_000_000).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
        match at {
            Some(at) => write!(f, ", at {at}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use storage::hosts::AddedBy;

    use super::*;
    use crate::host_view::{LimitsView, ResetView};

    const EVIL: &str = "<script>alert('\"&')</script>";

    fn view() -> HostView {
        HostView {
            hostname: EVIL.to_owned(),
            status: "active",
            phase: "active",
            state: EVIL.to_owned(),
            read_here: true,
            banned_with_domain: None,
            added_at_micros: 1,
            added_by: AddedBy::Request,
            limits: LimitsView {
                events_per_second: Some(50),
                events_per_hour: None,
                events_per_day: None,
                bytes_per_second: None,
                accounts_max: Some(10_000),
                rule: Some(EVIL.to_owned()),
                exception: None,
            },
            throttled: None,
            last_reset: Some(ResetView {
                cause: "future_cursor",
                meaning: "the host counts anew",
                at_micros: 1_799_999_940_000_000,
                from_epoch: 2,
                from_seq: Some(99),
                to_epoch: 3,
                to_seq: None,
            }),
            epoch: 3,
            seq: Some(1_234_567),
            account_count: 12,
            accounts_throttled: 2,
            events: 9,
            bytes: 900,
            events_per_second: 1.25,
            in_flight: 0,
            connected_for_s: Some(61),
            next_try_in_s: None,
            last_event_at_micros: None,
            last_end: None,
            tries: 4,
            connections: 3,
            ends: BTreeMap::from([("closed", 2)]),
            failures: 0,
            now_micros: 1_800_000_000_000_000,
            uptime_s: 3_700,
            refused: vec![RefusedView {
                reason: "bad_path",
                meaning: "A path",
                remedy: "Mend it.",
                last_hour: 1,
                last_day: 2,
                total: 30_000,
                example: ExampleView {
                    at_micros: 1_799_999_940_000_000,
                    kind: Some("#commit"),
                    seq: Some(77),
                    did: Some(EVIL.to_owned()),
                    rev: Some(EVIL.to_owned()),
                    path: Some(EVIL.to_owned()),
                    came: EVIL.to_owned(),
                    expected: EVIL.to_owned(),
                },
            }],
        }
    }

    #[test]
    fn texts_from_outside_are_escaped() {
        for html in [page(&view()), unknown(EVIL), unreadable(EVIL)] {
            assert!(!html.contains("<script"), "{html}");
            assert!(html.contains("&lt;script&gt;alert(&#39;&quot;&amp;&#39;)&lt;/script&gt;"), "{html}");
        }
    }

    #[test]
    fn a_refusal_says_how_often_when_what_and_what_to_do() {
        let html = page(&view());
        for said in [
            "<td class=\"n\">1</td><td class=\"n\">2</td><td class=\"n\">30\u{202f}000</td>",
            "1 min 0 s ago, at 2027-01-15T07:59:00Z",
            "#commit with seq 77",
            "Mend it.",
            "2 over the cap",
            "at most 10\u{202f}000",
            "the host counts anew; it had been read up to seq 99 and was read on live",
        ] {
            assert!(html.contains(said), "{said}: {html}");
        }
        let quiet = page(&HostView { refused: Vec::new(), ..view() });
        assert!(quiet.contains("Nothing since the relay was started, 1 h 1 min ago."), "{quiet}");
    }
}
