#!/usr/bin/env python3
"""Writes the dashboards beside it: `deploy/grafana/generate.py`. What they show is said here, how Grafana wants it below.

A panel is `(title, unit, {legend: query})`. Where nothing has happened yet a query says 0, by `or on() vector(0)`: an empty panel
would say that something is wrong with the dashboard. `rate` is over $__rate_interval, which Grafana fits to the scrapes.
"""

import json
from pathlib import Path

HERE = Path(__file__).resolve().parent
C = 'cluster=~"$cluster"'
RATE = "$__rate_interval"


def rate(metric, labels="", by=""):
    labels = ",".join(part for part in [C, labels] if part)
    return f"sum{f' by ({by}) ' if by else ''}(rate({metric}{{{labels}}}[{RATE}]))"


def or_zero(query):
    return f"{query} or on() vector(0)"


def quantile(q, metric, by=""):
    groups = ", ".join(part for part in ["le", by] if part)
    # A quantile of nothing is NaN, which is not >= 0.
    return f"histogram_quantile({q}, sum by ({groups}) (rate({metric}_bucket{{{C}}}[{RATE}]))) >= 0"


def gauge(metric, labels="", how="sum", by=""):
    labels = ",".join(part for part in [C, labels] if part)
    return f"{how}{f' by ({by}) ' if by else ''}({metric}{{{labels}}})"


OVERVIEW = [
    ("Hosts send, and the stream gets", "cps", {"sent": f"sum(mainstem:messages:rate5m{{{C}}})", "judged": f"sum(mainstem:judged:rate5m{{{C}}})", "logged": f"sum(mainstem:logged:rate5m{{{C}}})"}),
    ("Refused, share of what is judged", "percentunit", {"refused": f"sum(mainstem:refused:rate5m{{{C}}}) / (sum(mainstem:judged:rate5m{{{C}}}) > 0)"}),
    ("Hosts by status", "short", {"{{status}}": gauge("mainstem_crawler_hosts", by="status")}),
    ("Subscribers", "short", {"connected": gauge("mainstem_fanout_subscribers"), "live": gauge("mainstem_fanout_live_subscribers"), "replaying": gauge("mainstem_fanout_replaying_subscribers")}),
    ("Lanes standing still", "short", {"lanes": gauge("mainstem_lanes_standing_still")}),
    ("Alerts firing", "short", {"{{alertname}}": or_zero('count by (alertname) (ALERTS{alertstate="firing"})')}),
    ("Processors in use", "short", {"{{role}} {{instance}}": f'rate(process_cpu_seconds_total{{job=~".*mainstem.*",{C}}}[{RATE}])'}),
    ("Resident memory", "bytes", {"{{role}} {{instance}}": f'process_resident_memory_bytes{{job=~".*mainstem.*",{C}}}'}),
    ("Descriptors in use, share", "percentunit", {"{{role}} {{instance}}": f'process_open_fds{{job=~".*mainstem.*",{C}}} / process_max_fds{{job=~".*mainstem.*",{C}}}'}),
    ("Wrong passwords and failed changes, in an hour", "short", {"wrong passwords": f"sum(increase(mainstem_admin_attempts_failed_total{{{C}}}[1h]))", "failed changes": f'sum(increase(mainstem_admin_changes_total{{{C},result=~"failed|unknown"}}[1h]))'}),
]
HOSTS = [
    ("Hosts by status", "short", {"{{status}}": gauge("mainstem_crawler_hosts", by="status")}),
    ("Messages by kind", "cps", {"{{kind}}": rate("mainstem_crawler_messages_total", by="kind")}),
    ("Bytes from hosts", "Bps", {"bytes": rate("mainstem_crawler_bytes_total")}),
    ("Connections made", "cps", {"made": rate("mainstem_crawler_connections_opened_total")}),
    ("Connections that ended, by cause", "cps", {"{{cause}}": rate("mainstem_crawler_connection_ends_total", by="cause")}),
    ("Why hosts are not read, seconds a second", "short", {"over their rate": rate("mainstem_crawler_throttled_seconds_total"), "intake full": rate("mainstem_crawler_intake_full_seconds_total"), "large messages": rate("mainstem_crawler_half_message_waiting_seconds_total")}),
    ("Refused before judging, by reason", "cps", {"{{reason}}": rate("mainstem_crawler_refusals_total", by="reason")}),
    ("requestCrawl, by answer", "cps", {"{{answer}}": rate("mainstem_crawler_crawl_requests_total", by="answer")}),
    ("Read and not judged", "bytes", {"bytes": gauge("mainstem_intake_bytes")}),
    ("Cursors saved and not saved", "cps", {"saved": rate("mainstem_crawler_cursor_saves_total"), "failed": rate("mainstem_crawler_save_failures_total")}),
    ("Seqs begun anew, cursors too old", "cps", {"begun anew": rate("mainstem_crawler_seq_resets_total"), "too old": rate("mainstem_crawler_outdated_cursors_total")}),
]
VALIDATION = [
    ("Judged, by verdict", "cps", {"{{verdict}}": rate("mainstem_events_judged_total", by="verdict")}),
    ("Judged, by kind", "cps", {"{{kind}}": rate("mainstem_events_judged_total", by="kind")}),
    ("Refused, the ten most frequent reasons", "cps", {"{{reason}}": f"topk(10, {rate('mainstem_events_refused_total', by='reason')})"}),
    ("Accepted though not continuous", "cps", {"events": rate("mainstem_events_discontinuous_total")}),
    ("Time of judging one event", "s", {"p50": quantile(0.5, "mainstem_judge_seconds"), "p99": quantile(0.99, "mainstem_judge_seconds")}),
    ("Waiting for identity, status or state", "short", {"accounts": gauge("mainstem_parked_accounts")}),
    ("Bytes that wait", "bytes", {"bytes": gauge("mainstem_parked_bytes")}),
    ("Identities needed, by where they were", "cps", {"{{result}}": rate("mainstem_identity_cache_total", by="result")}),
    ("Requests for identities, by result", "cps", {"{{method}} {{result}}": rate("mainstem_identity_requests_total", by="method, result"), "allowed": gauge("mainstem_identity_requests_per_second_max")}),
    ("Time of a request, p99", "s", {"{{method}}": or_zero(quantile(0.99, "mainstem_identity_request_seconds", "method"))}),
    ("Looked up or waiting for it", "short", {"accounts": gauge("mainstem_identity_lookups"), "requests under way": gauge("mainstem_identity_in_flight")}),
    ("Identities in memory", "short", {"identities": gauge("mainstem_identity_cached")}),
]
LOG = [
    ("Log", "bytes", {"{{instance}}": f"mainstem_log_bytes{{{C}}}"}),
    ("The window reaches back about", "s", {"time": f"max(mainstem:window_seconds:estimate{{{C}}})"}),
    ("Seqs", "short", {"newest": gauge("mainstem_log_last_seq", how="max"), "oldest": gauge("mainstem_log_first_seq", how="min")}),
    ("One process: a sync of the log", "s", {"p50": or_zero(quantile(0.5, "mainstem_log_sync_seconds")), "p99": or_zero(quantile(0.99, "mainstem_log_sync_seconds"))}),
    ("One process: events logged, disk full", "short", {"events a second": or_zero(rate("mainstem_log_events_total")), "full": or_zero(gauge("mainstem_log_full", how="max"))}),
    ("Kafka or CQL silent", "short", {"{{server}}": or_zero(gauge("mainstem_cluster_silent", by="server", how="max"))}),
    ("raw", "bytes", {"held": or_zero(gauge("mainstem_raw_bytes", how="max")), "may hold": or_zero(gauge("mainstem_raw_bytes_max", how="max"))}),
    ("Lags, records", "short", {"validators": or_zero(gauge("mainstem_lane_lag_records")), "sequencer": or_zero(gauge("mainstem_sequencer_lag_records")), "serves, most": or_zero(gauge("mainstem_firehose_lag_records", how="max"))}),
    ("Lanes and shares held", "short", {"lanes": or_zero(gauge("mainstem_lane_held")), "being taken over": or_zero(gauge("mainstem_lane_taking")), "shares of hosts": or_zero(gauge("mainstem_host_shares_held"))}),
    ("What sequencers do", "short", {"{{phase}}": or_zero(gauge("mainstem_sequencer_phase", by="phase"))}),
    ("From accepted to readable", "s", {"p50": or_zero(quantile(0.5, "mainstem_sequencer_wait_seconds")), "p99": or_zero(quantile(0.99, "mainstem_sequencer_wait_seconds")), "oldest that waits": or_zero(gauge("mainstem_sequencer_age_seconds", how="max"))}),
    ("Lanes: p99 of each step", "s", {"into raw": or_zero(quantile(0.99, "mainstem_lane_push_seconds")), "until judged": or_zero(quantile(0.99, "mainstem_lane_wait_seconds")), "rows": or_zero(quantile(0.99, "mainstem_lane_rows_seconds"))}),
    ("CQL, p99 by statement", "s", {"{{statement}}": or_zero(quantile(0.99, "mainstem_cql_seconds", "statement"))}),
    ("CQL tries that failed, by cause", "cps", {"{{cause}}": or_zero(rate("mainstem_cql_errors_total", by="cause"))}),
    ("Seqs that came twice", "short", {"events": or_zero(gauge("mainstem_firehose_seqs_again_total"))}),
]
FAN_OUT = [
    ("Subscribers", "short", {"connected": gauge("mainstem_fanout_subscribers"), "live": gauge("mainstem_fanout_live_subscribers"), "replaying": gauge("mainstem_fanout_replaying_subscribers")}),
    ("Events sent, over all subscribers", "cps", {"sent": rate("mainstem_fanout_events_sent_total"), "taken from the log": rate("mainstem_fanout_events_total")}),
    ("Bytes sent", "Bps", {"bytes": rate("mainstem_fanout_bytes_sent_total")}),
    ("Connections that ended, by reason", "cps", {"{{reason}}": rate("mainstem_fanout_disconnects_total", by="reason")}),
    ("Refused, by reason", "cps", {"{{reason}}": rate("mainstem_fanout_refused_total", by="reason")}),
    ("Replay: reads", "cps", {"from the log": rate("mainstem_fanout_replay_reads_total"), "served by another's": rate("mainstem_fanout_replay_shared_total")}),
    ("Memory of events", "bytes", {"ring": gauge("mainstem_fanout_ring_bytes"), "replay": gauge("mainstem_fanout_replay_bytes"), "compressed": gauge("mainstem_fanout_deflated_bytes")}),
    ("Compression: before and after", "Bps", {"before": rate("mainstem_fanout_deflate_read_bytes_total"), "after": rate("mainstem_fanout_deflate_made_bytes_total")}),
    ("HTTP connections", "short", {"{{listener}}": gauge("mainstem_http_connections", by="listener")}),
    ("HTTP connections turned away", "cps", {"{{listener}} {{reason}}": rate("mainstem_http_refused_total", by="listener, reason")}),
    ("Accounts taken down", "short", {"accounts": gauge("mainstem_fanout_withheld_accounts", how="max")}),
]
COVERAGE = [
    ("Hosts of the peer, and of them missing here", "short", {"{{peer}}": gauge("mainstem_coverage_peer_hosts", how="max", by="peer"), "missing of {{peer}}": gauge("mainstem_coverage_hosts_missing", how="max", by="peer")}),
    ("Repos of the peer", "short", {"{{peer}}": gauge("mainstem_coverage_peer_repos", how="max", by="peer")}),
    ("Repos looked at, and of them missing here", "cps", {"looked at {{peer}}": rate("mainstem_coverage_repos_looked_total", by="peer"), "missing of {{peer}}": rate("mainstem_coverage_repos_missing_total", by="peer")}),
    ("Since the last whole round", "s", {"{{peer}}": gauge("mainstem_coverage_round_age_seconds", how="max", by="peer")}),
    ("Failures", "cps", {"{{peer}}": rate("mainstem_coverage_failures_total", by="peer")}),
]
DASHBOARDS = {
    "overview": ("Mainstem: overview", OVERVIEW),
    "hosts": ("Mainstem: crawler and hosts", HOSTS),
    "validation": ("Mainstem: validation and identity", VALIDATION),
    "log": ("Mainstem: log and cluster", LOG),
    "fan-out": ("Mainstem: fan-out", FAN_OUT),
    "coverage": ("Mainstem: coverage against peers", COVERAGE),
}
# Empty where the relay has no peer to compare its lists with.
ONLY_WITH_A_PEER = {"coverage"}
SOURCE = {"type": "prometheus", "uid": "${source}"}


def panel(number, title, unit, queries):
    targets = [
        {"datasource": SOURCE, "expr": query, "legendFormat": legend, "refId": chr(ord("A") + at)}
        for at, (legend, query) in enumerate(queries.items())
    ]
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": title,
        "datasource": SOURCE,
        "gridPos": {"h": 8, "w": 8, "x": number % 3 * 8, "y": number // 3 * 8},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": targets,
    }


def dashboard(name):
    title, panels = DASHBOARDS[name]
    choose_source = {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    choose_cluster = {
        "name": "cluster",
        "type": "query",
        "datasource": SOURCE,
        "query": "label_values(mainstem_build_info, cluster)",
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        # A relay without the label is found too.
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }
    return {
        "uid": f"mainstem-{name}",
        "title": title,
        "tags": ["mainstem"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [choose_source, choose_cluster]},
        "links": [{"type": "dashboards", "title": "Mainstem", "tags": ["mainstem"], "asDropdown": True}],
        "panels": [panel(number, *parts) for number, parts in enumerate(panels)],
    }


def text(name):
    return json.dumps(dashboard(name), indent=1) + "\n"


if __name__ == "__main__":
    for name in DASHBOARDS:
        (HERE / f"{name}.json").write_text(text(name))
