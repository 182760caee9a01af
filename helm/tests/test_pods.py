"""What must hold of every pod, whatever the values."""

import re
import unittest

import chart


class Pods(unittest.TestCase):
    def every(self):
        for values in chart.ALL:
            for name, metadata, spec in chart.pods(chart.objects(values)):
                with self.subTest(f"{values}: {name}"):
                    yield name, metadata, spec

    def test_all_are_restricted(self):
        for _, _, spec in self.every():
            self.assertIs(spec["automountServiceAccountToken"], False)
            security = spec["securityContext"]
            self.assertIs(security["runAsNonRoot"], True)
            self.assertEqual((security["runAsUser"], security["runAsGroup"], security["fsGroup"]), (65532, 65532, 65532))
            self.assertEqual(security["seccompProfile"], {"type": "RuntimeDefault"})
            for key in ("hostNetwork", "hostPID", "hostIPC", "initContainers"):
                self.assertNotIn(key, spec)
            for container in spec["containers"]:
                own = container["securityContext"]
                self.assertIs(own["readOnlyRootFilesystem"], True)
                self.assertIs(own["allowPrivilegeEscalation"], False)
                self.assertIs(own["runAsNonRoot"], True)
                self.assertEqual(own["capabilities"], {"drop": ["ALL"]})
            for volume in spec.get("volumes", []):
                (kind,) = set(volume) - {"name"}
                self.assertIn(kind, ("secret", "configMap", "emptyDir", "persistentVolumeClaim"))

    def test_no_secret_is_in_an_environment(self):
        for _, _, spec in self.every():
            for container in spec["containers"]:
                for entry in container.get("env", []):
                    self.assertNotIn("secretKeyRef", str(entry))
                    if re.search("PASSWORD|TOKEN|CERT|_CA", entry["name"]):
                        self.assertRegex(entry["value"], "^/etc/mainstem/[a-z-]+/[^/]+$")

    def test_files_that_are_named_are_mounted(self):
        files = 0
        for _, _, spec in self.every():
            (container,) = spec["containers"]
            volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
            mounted = set()
            for mount in container.get("volumeMounts", []):
                # A StatefulSet's claims have no volume in its template.
                if mount["name"] not in volumes:
                    self.assertEqual(mount["name"], "data")
                    continue
                volume = volumes[mount["name"]]
                source = volume.get("secret") or volume.get("configMap")
                if source:
                    self.assertIs(mount["readOnly"], True)
                    mounted |= {f"{mount['mountPath']}/{item['path']}" for item in source["items"]}
            named = {value for value in chart.env(spec).values() if value.startswith("/etc/mainstem/")}
            self.assertEqual(named, mounted)
            files += len(named)
        self.assertGreater(files, 30)

    def test_a_pod_has_time_for_its_drain(self):
        seen = 0
        for name, _, spec in self.every():
            if name.startswith(("Deployment/", "StatefulSet/")):
                (container,) = spec["containers"]
                sleep = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
                self.assertGreater(spec["terminationGracePeriodSeconds"], sleep + chart.DRAIN_SECONDS)
                seen += 1
        self.assertEqual(seen, len(chart.EMBEDDED) + 4 * len(chart.CLUSTER))

    def test_a_node_that_serves_leaves_its_service_first(self):
        spec = chart.the(chart.objects("cluster"), "Deployment", "serve")["spec"]["template"]["spec"]
        self.assertEqual(spec["containers"][0]["lifecycle"]["preStop"], {"sleep": {"seconds": 10}})

    def test_drain_seconds_are_those_of_the_relay(self):
        source = (chart.REPOSITORY / "relay" / "src" / "main.rs").read_text()
        self.assertIn(f"const DRAIN_MAX: Duration = Duration::from_secs({chart.DRAIN_SECONDS});", source)

    def test_probes(self):
        for name, _, spec in self.every():
            if name.startswith(("Deployment/", "StatefulSet/")):
                (container,) = spec["containers"]
                paths = {probe: container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
                self.assertEqual(paths, {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"})
                startup = container["startupProbe"]
                most = 1800 if name.startswith("StatefulSet/") else 360
                self.assertEqual(startup["periodSeconds"] * startup["failureThreshold"], most)

    def test_services_are_not_in_the_environment(self):
        # A Service that is called mainstem would make MAINSTEM_PORT and the like, which look like settings.
        for _, _, spec in self.every():
            self.assertIs(spec["enableServiceLinks"], False)

    def test_a_role_is_told_its_settings_and_no_others(self):
        relay = (chart.REPOSITORY / "relay" / "src" / "cli.rs").read_text()
        known = set(re.findall(r'env = "(MAINSTEM_[A-Z_]+)"', relay))
        self.assertGreater(len(known), 40)
        for _, _, spec in self.every():
            names = {name for name in chart.env(spec) if name.startswith("MAINSTEM_")}
            self.assertLessEqual(names - {"MAINSTEM_ADMIN_TOKEN_FILE", "MAINSTEM_ADMIN_PASSWORD_FILE"}, known)
        cluster = {one: chart.env(chart.the(chart.objects("cluster-full"), "Deployment", one)["spec"]["template"]["spec"]) for one in chart.ROLES[1:]}
        self.assertEqual({one for one in cluster if "MAINSTEM_BIND" in cluster[one]}, {"serve"})
        self.assertEqual({one for one in cluster if "MAINSTEM_BOOTSTRAP" in cluster[one]}, {"crawl"})
        self.assertEqual({one for one in cluster if "MAINSTEM_WORKERS" in cluster[one]}, {"validate"})
        self.assertEqual({one for one in cluster if "MAINSTEM_ADMIN_TOKEN_FILE" in cluster[one]}, {"serve"})
        self.assertEqual({one for one in cluster if "MAINSTEM_LIMITS" in cluster[one]}, {"crawl", "validate", "serve"})
        self.assertEqual({one for one in cluster if "MAINSTEM_KAFKA_PASSWORD_FILE" in cluster[one]}, set(chart.ROLES[1:]))

    def test_large_numbers_are_written_out(self):
        found = chart.objects("embedded", "--set", "subscribers.max=1000000", "--set", "seqStart=100000000")
        settings = chart.env(chart.the(found, "StatefulSet", "embedded")["spec"]["template"]["spec"])
        self.assertEqual(settings["MAINSTEM_SUBSCRIBERS_MAX"], "1000000")
        self.assertEqual(settings["MAINSTEM_SEQ_START"], "100000000")

    def test_a_change_of_a_setting_makes_new_pods_and_one_of_the_limits_does_not(self):
        def made(*args):
            return chart.the(chart.objects("embedded-full", *args), "StatefulSet", "embedded")["spec"]["template"]

        def checksum(template):
            return template["metadata"]["annotations"]["checksum/settings"]

        before = made()
        self.assertNotEqual(checksum(before), checksum(made("--set", "window.time=48h")))
        self.assertNotEqual(checksum(before), checksum(made("--set", "network.ca.certificates=another")))
        self.assertEqual(before, made("--set", "limits.rules=another"))
        limits = [one for one in chart.of_kind(chart.objects("embedded-full", "--set", "limits.rules=another"), "ConfigMap")]
        self.assertIn({"limits.toml": "another\n"}, [one["data"] for one in limits])


if __name__ == "__main__":
    unittest.main()
