"""Who may talk to whom."""

import ipaddress
import unittest

import chart

# Where nobody should get by the rule for the public internet: clouds' metadata, local networks, the pods' and nodes' own.
NOT_PUBLIC = ["169.254.169.254", "169.254.170.2", "100.100.100.200", "192.0.0.192", "168.63.129.16", "fd00:ec2::254", "10.0.0.1",
              "172.16.0.1", "192.168.1.1", "100.64.0.1", "127.0.0.1", "0.0.0.0", "224.0.0.1", "::1", "fe80::1", "fc00::1"]
PUBLIC = ["1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111"]


def ports(rule):
    return {(one["protocol"], one["port"]) for one in rule["ports"]}


def tcp(*numbers):
    return {("TCP", number) for number in numbers}


DNS = {("TCP", 53), ("UDP", 53)}


def admits(rule, address):
    """Whether a rule of address blocks lets traffic out to an address."""
    address = ipaddress.ip_address(address)

    def holds(cidr):
        network = ipaddress.ip_network(cidr)
        return network.version == address.version and address in network

    return any(holds(peer["ipBlock"]["cidr"]) and not any(map(holds, peer["ipBlock"].get("except", []))) for peer in rule["to"])


class NetworkPolicies(unittest.TestCase):
    def egress(self, values, component, *args):
        policy = chart.the(chart.objects(values, *args), "NetworkPolicy", component)
        self.assertEqual(policy["spec"]["policyTypes"], ["Ingress", "Egress"])
        return policy["spec"]["egress"]

    def test_each_pod_has_a_policy(self):
        for values in chart.ALL:
            found = chart.objects(values)
            selectors = [policy["spec"]["podSelector"]["matchLabels"] for policy in chart.of_kind(found, "NetworkPolicy")]
            for name, metadata, _ in chart.pods(found):
                with self.subTest(f"{values}: {name}"):
                    chosen = [one for one in selectors if one.items() <= metadata["labels"].items()]
                    self.assertEqual(len(chosen), 1)

    def test_each_role_gets_out_to_what_it_needs(self):
        kafka, cql, public, identities = tcp(9092), tcp(9042, 19042, 19142), tcp(443, 80), tcp(443)
        wanted = {
            ("embedded", "embedded"): [DNS, public],
            ("cluster", "crawl"): [DNS, kafka, cql, public],
            ("cluster", "validate"): [DNS, kafka, cql, identities],
            ("cluster", "sequence"): [DNS, kafka, cql],
            ("cluster", "serve"): [DNS, kafka, cql, identities],
            ("cluster", "init"): [DNS, kafka, cql],
            ("cluster", "test"): [DNS, kafka, cql, {("TCP", "admin")}],
        }
        for (values, component), rules in wanted.items():
            with self.subTest(component):
                self.assertEqual([ports(rule) for rule in self.egress(values, component)], rules)

    def test_the_public_internet_is_public(self):
        tried = 0
        for values in chart.ALL:
            for policy in chart.of_kind(chart.objects(values), "NetworkPolicy"):
                for rule in policy["spec"]["egress"]:
                    if "to" in rule and any(peer.get("ipBlock", {}).get("cidr") == "0.0.0.0/0" for peer in rule["to"]):
                        with self.subTest(f"{values}: {policy['metadata']['name']}"):
                            self.assertEqual([one for one in NOT_PUBLIC if admits(rule, one)], [])
                            self.assertEqual([one for one in PUBLIC if not admits(rule, one)], [])
                            tried += 1
        self.assertEqual(tried, len(chart.EMBEDDED) + 3 * len(chart.CLUSTER))

    def test_dns_is_that_of_the_cluster(self):
        self.assertEqual(self.egress("cluster", "sequence")[0]["to"],
                         [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}])

    def test_kafka_and_cql_can_be_narrowed_and_have_their_ports(self):
        rules = self.egress("cluster-full", "sequence")
        self.assertEqual(ports(rules[1]), tcp(9093, 9094, 9095))
        self.assertEqual(rules[1]["to"], [{"ipBlock": {"cidr": "10.1.0.0/24"}}])
        self.assertEqual(ports(rules[2]), tcp(9142, 19042, 19142))
        self.assertEqual(rules[2]["to"], [{"ipBlock": {"cidr": "10.1.2.0/24"}}])

    def test_operators_servers_are_found_by_their_labels(self):
        rules = self.egress("operators", "sequence")
        self.assertEqual(rules[1]["to"], [{"podSelector": {"matchLabels": {"strimzi.io/cluster": "mainstem-kafka"}}}])
        self.assertEqual(ports(rules[1]), tcp(9093))
        self.assertEqual(rules[2]["to"], [{"podSelector": {"matchLabels": {"scylla/cluster": "mainstem-scylla"}}}])

    def test_more_can_be_let_out(self):
        rules = self.egress("embedded-full", "embedded")
        self.assertEqual(ports(rules[-1]), tcp(8444))
        self.assertNotIn("roles", rules[-1])
        self.assertEqual(len(self.egress("embedded-full", "test")), 2)

    def test_metrics_are_for_who_watches(self):
        for values, component in (("embedded", "embedded"), ("cluster", "crawl"), ("cluster", "validate"), ("cluster", "sequence"), ("cluster", "serve")):
            policy = chart.the(chart.objects(values), "NetworkPolicy", component)
            by_port = {rule["ports"][0]["port"]: rule for rule in policy["spec"]["ingress"]}
            with self.subTest(component):
                self.assertEqual(set(by_port), {"stream", "admin"} if component in ("embedded", "serve") else {"admin"})
                from_test, from_prometheus = by_port["admin"]["from"]
                self.assertEqual(from_test["podSelector"]["matchLabels"]["app.kubernetes.io/component"], "test")
                self.assertEqual(from_prometheus, {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}})

    def test_nobody_reaches_what_only_asks(self):
        for component in ("init", "test"):
            self.assertEqual(chart.the(chart.objects("cluster"), "NetworkPolicy", component)["spec"]["ingress"], [])

    def test_the_stream_can_be_narrowed(self):
        policy = chart.the(chart.objects("embedded-full"), "NetworkPolicy", "embedded")
        self.assertEqual(policy["spec"]["ingress"][0]["from"], [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}])

    def test_they_can_be_left_out(self):
        self.assertEqual(chart.of_kind(chart.objects("cluster", "--set", "networkPolicy.enabled=false"), "NetworkPolicy"), [])


if __name__ == "__main__":
    unittest.main()
