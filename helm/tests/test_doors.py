"""How the relay is reached: services, ingress, routes; and how it is watched and tested."""

import json
import unittest

import yaml

import chart


class Doors(unittest.TestCase):
    def service(self, found, name):
        (one,) = [one for one in chart.of_kind(found, "Service") if one["metadata"]["name"] == name]
        return one["spec"]

    def test_the_stream_and_administration_are_apart(self):
        for values, name, server in (("embedded", "test-mainstem", "embedded"), ("cluster", "test-mainstem", "serve")):
            found = chart.objects(values)
            stream, admin = self.service(found, name), self.service(found, f"{name}-admin")
            self.assertEqual([port["port"] for port in stream["ports"]], [2470])
            self.assertEqual([port["port"] for port in admin["ports"]], [2471])
            for one in (stream, admin):
                self.assertEqual(one["selector"]["app.kubernetes.io/component"], server)

    def test_metrics_are_of_every_relay_pod_ready_or_not(self):
        for values in chart.ALL:
            found = chart.objects(values)
            (name,) = [one["metadata"]["name"] for one in chart.of_kind(found, "Service") if chart.component(one) == "metrics"]
            metrics = self.service(found, name)
            self.assertEqual((metrics["clusterIP"], metrics["publishNotReadyAddresses"]), ("None", True))
            chosen = {
                metadata["labels"]["app.kubernetes.io/component"]
                for _, metadata, _ in chart.pods(found)
                if metrics["selector"].items() <= metadata["labels"].items()
            }
            self.assertEqual(chosen, {"embedded"} if values in chart.EMBEDDED else {"crawl", "validate", "sequence", "serve"})

    def test_streams_may_last_behind_a_proxy(self):
        found = chart.objects("embedded-full")
        (ingress,) = chart.of_kind(found, "Ingress")
        self.assertEqual(ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-read-timeout"], "3600")
        self.assertEqual(ingress["spec"]["tls"], [{"hosts": ["relay.example.com"], "secretName": "relay-tls"}])
        self.assertEqual(ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"], {"name": "relay", "port": {"name": "stream"}})
        (route,) = chart.of_kind(found, "HTTPRoute")
        self.assertEqual(route["spec"]["rules"][0]["timeouts"], {"request": "0s", "backendRequest": "0s"})
        self.assertEqual(route["spec"]["rules"][0]["backendRefs"], [{"name": "relay", "port": 2470}])
        proxies = chart.env(chart.the(found, "StatefulSet", "embedded")["spec"]["template"]["spec"])["MAINSTEM_TRUSTED_PROXIES"]
        self.assertEqual(proxies, "10.244.0.0/16,fd00:10:244::/56")

    def test_the_monitor_finds_the_metrics_and_names_the_role(self):
        found = chart.objects("cluster-full")
        (monitor,) = chart.of_kind(found, "ServiceMonitor")
        chosen = [
            one["metadata"]["name"]
            for one in chart.of_kind(found, "Service")
            if monitor["spec"]["selector"]["matchLabels"].items() <= one["metadata"]["labels"].items()
        ]
        self.assertEqual(chosen, ["test-mainstem-metrics"])
        (endpoint,) = monitor["spec"]["endpoints"]
        self.assertEqual(endpoint["port"], "admin")
        labels = {one["targetLabel"]: one.get("replacement") for one in endpoint["relabelings"]}
        self.assertEqual(labels, {"role": None, "job": "mainstem", "cluster": "relay/test-mainstem"})

    def test_names_that_are_long_still_fit(self):
        found = chart.objects("operators", "--set", f"fullnameOverride={'a' * 63}")
        for one in found:
            self.assertLessEqual(len(one["metadata"]["name"]), 63)


class Tests(unittest.TestCase):
    def commands(self, values, *args):
        found = chart.objects(values, *args)
        tests = [one for one in chart.of_kind(found, "Pod") if one["metadata"]["annotations"].get("helm.sh/hook") == "test"]
        return [" ".join(one["spec"]["containers"][0]["args"]) for one in tests]

    def test_what_is_asked(self):
        hosts = "admin --url http://{}-admin:2471 hosts list"
        self.assertEqual(self.commands("embedded"), [])
        self.assertEqual(self.commands("embedded-full"), [hosts.format("relay")])
        self.assertEqual(self.commands("cluster"), ["cluster status"])
        self.assertEqual(sorted(self.commands("cluster-full")), sorted(["cluster status", hosts.format("test-mainstem")]))


class Files(unittest.TestCase):
    """Alert rules and dashboards live in deploy/, and the chart carries copies."""

    DEPLOY = chart.REPOSITORY / "deploy"

    def rules(self):
        """Beside rules there may be a configuration of Prometheus, or tests of the rules."""
        return [path for path in (self.DEPLOY / "prometheus").glob("*.yaml") if "groups" in yaml.safe_load(path.read_text())]

    def test_copies_are_equal(self):
        for ours, theirs in (
            ((chart.CHART / "files" / "rules").glob("*.yaml"), self.rules()),
            ((chart.CHART / "files" / "dashboards").glob("*.json"), (self.DEPLOY / "grafana").glob("*.json")),
        ):
            self.assertEqual(
                {path.name: path.read_text() for path in ours},
                {path.name: path.read_text() for path in theirs},
                "run scripts/helm-files",
            )

    def test_all_that_is_there_is_carried(self):
        found = chart.objects("embedded", "--set", "metrics.rules.enabled=true", "--set", "metrics.dashboards.enabled=true")
        carried = {one["metadata"]["name"]: one["spec"] for one in chart.of_kind(found, "PrometheusRule")}
        wanted = {f"test-mainstem-{path.stem}": yaml.safe_load(path.read_text()) for path in (chart.CHART / "files" / "rules").glob("*.yaml")}
        self.assertEqual(carried, wanted)
        maps = [one for one in chart.of_kind(found, "ConfigMap") if "grafana_dashboard" in one["metadata"]["labels"]]
        dashboards = {name: json.loads(text) for one in maps for name, text in one["data"].items()}
        self.assertEqual(dashboards, {path.name: json.loads(path.read_text()) for path in (chart.CHART / "files" / "dashboards").glob("*.json")})


if __name__ == "__main__":
    unittest.main()
