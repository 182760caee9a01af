"""What is of a cluster alone: how its pods are replaced, spread and scaled, and what is done before they start."""

import unittest

import yaml

import chart

ROLES = ("crawl", "validate", "sequence", "serve")


class Replacing(unittest.TestCase):
    def test_one_at_a_time_and_subscribers_always_have_enough_nodes(self):
        found = chart.objects("cluster")
        for role in ROLES:
            spec = chart.the(found, "Deployment", role)["spec"]
            rolling = spec["strategy"]["rollingUpdate"]
            wanted = {"maxUnavailable": 0, "maxSurge": 1} if role == "serve" else {"maxUnavailable": 1, "maxSurge": 0}
            self.assertEqual(rolling, wanted, role)
            self.assertEqual(spec["replicas"], 2, role)
            self.assertGreater(spec["minReadySeconds"], 0, role)

    def test_one_at_a_time_leaves_when_nodes_are_emptied(self):
        budgets = {chart.component(one): one["spec"] for one in chart.of_kind(chart.objects("cluster"), "PodDisruptionBudget")}
        self.assertEqual(set(budgets), set(ROLES))
        for role, budget in budgets.items():
            self.assertEqual(budget["maxUnavailable"], 1)
            self.assertEqual(budget["selector"]["matchLabels"]["app.kubernetes.io/component"], role)

    def test_budgets_can_be_changed_and_left_out(self):
        budgets = {chart.component(one): one["spec"] for one in chart.of_kind(chart.objects("cluster-full"), "PodDisruptionBudget")}
        self.assertEqual(set(budgets), {"crawl", "validate", "serve"})
        self.assertEqual(budgets["serve"]["maxUnavailable"], "25%")

    def test_one_process_has_none_which_would_hold_up_its_node_for_ever(self):
        self.assertEqual(chart.of_kind(chart.objects("embedded"), "PodDisruptionBudget"), [])

    def test_pods_are_spread_over_zones_and_nodes(self):
        found = chart.objects("cluster-full")
        for role in ROLES:
            spread = chart.the(found, "Deployment", role)["spec"]["template"]["spec"]["topologySpreadConstraints"]
            self.assertEqual([one["topologyKey"] for one in spread], ["topology.kubernetes.io/zone", "kubernetes.io/hostname"])
            wanted = "DoNotSchedule" if role == "sequence" else "ScheduleAnyway"
            self.assertEqual({one["whenUnsatisfiable"] for one in spread}, {wanted})
            for one in spread:
                self.assertEqual(one["labelSelector"]["matchLabels"]["app.kubernetes.io/component"], role)

    def test_labels_of_pods_name_no_version(self):
        for values in chart.ALL:
            for name, metadata, _ in chart.pods(chart.objects(values)):
                self.assertNotIn("helm.sh/chart", metadata["labels"], name)
                self.assertNotIn("app.kubernetes.io/version", metadata["labels"], name)


class Scaling(unittest.TestCase):
    def metric(self, found, role):
        (metric,) = chart.the(found, "HorizontalPodAutoscaler", role)["spec"]["metrics"]
        self.assertEqual(metric["type"], "Pods")
        return metric["pods"]["metric"]["name"], metric["pods"]["target"]["averageValue"]

    def test_by_lag_and_by_what_is_sent(self):
        found = chart.objects("cluster-full")
        self.assertEqual(self.metric(found, "validate"), ("mainstem_lane_lag_records", "2000"))
        self.assertEqual(self.metric(found, "serve"), ("mainstem_fanout_bytes_sent_per_second", "200M"))
        found = chart.objects("cluster-full", "--set", "serve.autoscaling.metric=subscribers")
        self.assertEqual(self.metric(found, "serve"), ("mainstem_fanout_subscribers", "500"))

    def test_who_is_scaled_is_not_set_by_the_chart(self):
        found = chart.objects("cluster-full")
        scaled = {one["spec"]["scaleTargetRef"]["name"] for one in chart.of_kind(found, "HorizontalPodAutoscaler")}
        for one in chart.of_kind(found, "Deployment"):
            self.assertEqual("replicas" in one["spec"], one["metadata"]["name"] not in scaled)

    def test_nobody_is_scaled_unasked(self):
        self.assertEqual(chart.of_kind(chart.objects("cluster"), "HorizontalPodAutoscaler"), [])

    def test_the_adapter_makes_the_metrics_of_what_the_relay_shows(self):
        rules = yaml.safe_load((chart.CHART / "files" / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
        made = {rule["name"]["as"] for rule in rules}
        self.assertEqual(made, {"mainstem_lane_lag_records", "mainstem_fanout_subscribers", "mainstem_fanout_bytes_sent_per_second"})
        sources = "".join(path.read_text() for part in ("relay", "storage") for path in (chart.REPOSITORY / part).rglob("*.rs"))
        for rule in rules:
            name = rule["seriesQuery"].split("{")[0]
            self.assertIn(f'"{name}"', sources)
            self.assertEqual(rule["name"]["matches"], f"^{name}$")


class Init(unittest.TestCase):
    def hooks(self, found):
        return {
            one["kind"]: one["metadata"]["annotations"]
            for one in found
            if "pre-install" in one["metadata"].get("annotations", {}).get("helm.sh/hook", "")
        }

    def test_it_runs_before_installs_and_upgrades_with_all_it_needs(self):
        found = chart.objects("cluster-full")
        hooks = self.hooks(found)
        self.assertEqual(set(hooks), {"Job", "NetworkPolicy", "ServiceAccount"})
        for annotations in hooks.values():
            self.assertEqual(annotations["helm.sh/hook"], "pre-install,pre-upgrade")
            self.assertEqual(annotations["helm.sh/hook-delete-policy"], "before-hook-creation,hook-succeeded")
        self.assertLess(int(hooks["NetworkPolicy"]["helm.sh/hook-weight"]), int(hooks["Job"]["helm.sh/hook-weight"]))
        self.assertLess(int(hooks["ServiceAccount"]["helm.sh/hook-weight"]), int(hooks["Job"]["helm.sh/hook-weight"]))
        job = chart.the(found, "Job", "init")["spec"]
        pod = job["template"]["spec"]
        # Nothing it needs comes with the release, which is not there yet: Secrets are the operator's, the account is a hook.
        own = {one["metadata"]["name"] for one in found if one["kind"] in ("ConfigMap", "Secret")}
        for volume in pod["volumes"]:
            self.assertNotIn((volume.get("configMap") or {}).get("name"), own)
        account = chart.the(found, "ServiceAccount", "init")["metadata"]["name"]
        self.assertEqual(pod["serviceAccountName"], account)
        self.assertEqual(pod["restartPolicy"], "Never")
        self.assertEqual(pod["containers"][0]["args"], ["cluster", "init"])
        self.assertEqual(job["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"], [1])
        settings = chart.env(pod)
        self.assertEqual((settings["MAINSTEM_LANES"], settings["MAINSTEM_HOST_PARTITIONS"]), ("32", "48"))
        self.assertEqual((settings["MAINSTEM_REPLICATION"], settings["MAINSTEM_CQL_REPLICATION"]), ("3", "2"))

    def test_an_account_that_is_there_already_is_used(self):
        found = chart.objects("cluster", "--set", "serviceAccount.create=false", "--set", "serviceAccount.name=ours")
        self.assertEqual(chart.of_kind(found, "ServiceAccount"), [])
        for name, _, spec in chart.pods(found):
            self.assertEqual(spec["serviceAccountName"], "ours", name)

    def test_beside_operators_it_is_no_hook_because_there_is_no_kafka_yet(self):
        found = chart.objects("operators")
        self.assertEqual(self.hooks(found), {})
        job = chart.the(found, "Job", "init")
        self.assertRegex(job["metadata"]["name"], "-init-[0-9a-f]{8}$")
        self.assertGreaterEqual(job["spec"]["backoffLimit"], 20, "servers take minutes to come up")
        self.assertEqual(chart.the(chart.objects("cluster"), "Job", "init")["spec"]["backoffLimit"], 5)
        other = chart.the(chart.objects("operators", "--set", "image.tag=another"), "Job", "init")
        self.assertNotEqual(job["metadata"]["name"], other["metadata"]["name"])
        names = {one["metadata"]["name"] for one in chart.of_kind(found, "ServiceAccount")}
        self.assertIn(job["spec"]["template"]["spec"]["serviceAccountName"], names)

    def test_one_process_needs_none(self):
        self.assertEqual(chart.of_kind(chart.objects("embedded-full"), "Job"), [])


class Operators(unittest.TestCase):
    def test_the_relay_is_told_what_the_operators_make(self):
        found = chart.objects("operators")
        kafka, pool, user = (chart.of_kind(found, kind)[0] for kind in ("Kafka", "KafkaNodePool", "KafkaUser"))
        (scylla,) = chart.of_kind(found, "ScyllaCluster")
        spec = chart.the(found, "Deployment", "serve")["spec"]["template"]["spec"]
        settings = chart.env(spec)
        (listener,) = kafka["spec"]["kafka"]["listeners"]
        self.assertEqual(settings["MAINSTEM_KAFKA"], f"{kafka['metadata']['name']}-kafka-bootstrap:{listener['port']}")
        self.assertEqual(settings["MAINSTEM_KAFKA_USER"], user["metadata"]["name"])
        self.assertEqual(settings["MAINSTEM_KAFKA_SASL"], listener["authentication"]["type"])
        self.assertEqual(settings["MAINSTEM_CQL"], f"{scylla['metadata']['name']}-client:9042")
        secrets = {volume["secret"]["secretName"] for volume in spec["volumes"] if "secret" in volume}
        self.assertEqual(secrets, {user["metadata"]["name"], f"{kafka['metadata']['name']}-cluster-ca-cert"})
        for one in (pool, user):
            self.assertEqual(one["metadata"]["labels"]["strimzi.io/cluster"], kafka["metadata"]["name"])

    def test_data_outlives_the_release_unless_told_otherwise(self):
        kinds = ("Kafka", "KafkaNodePool", "KafkaUser", "ScyllaCluster")
        for one in [one for one in chart.objects("operators") if one["kind"] in kinds]:
            self.assertEqual(one["metadata"]["annotations"]["helm.sh/resource-policy"], "keep", one["kind"])
        off = ("--set", "strimzi.keep=false", "--set", "scylla.keep=false")
        for one in [one for one in chart.objects("operators", *off) if one["kind"] in kinds]:
            self.assertNotIn("annotations", one["metadata"], one["kind"])

    def test_kafka_loses_nothing_with_one_broker(self):
        config = chart.of_kind(chart.objects("operators"), "Kafka")[0]["spec"]["kafka"]["config"]
        self.assertEqual(config["min.insync.replicas"], 2)
        self.assertEqual(config["transaction.state.log.min.isr"], 2)
        self.assertEqual(config["offsets.topic.replication.factor"], 3)
        self.assertIs(config["unclean.leader.election.enable"], False)


if __name__ == "__main__":
    unittest.main()
