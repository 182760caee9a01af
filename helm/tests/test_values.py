"""Wrong values are refused, in words that say what is wrong."""

import re
import unittest

import chart

# Values that are set beside a file of good ones, and the words of the refusal.
BY_SCHEMA = [
    ("embedded", "mode=both", "at '/mode': value must be one of 'embedded', 'cluster'"),
    ("embedded", "mod=cluster", "additional properties 'mod' not allowed"),
    ("embedded", "embedded.storge.size=1Gi", "at '/embedded': additional properties 'storge' not allowed"),
    ("embedded", "embedded.storage.size=large", "at '/embedded/storage/size': 'large' does not match pattern"),
    ("embedded", "embedded.terminationGracePeriodSeconds=5", "at '/embedded/terminationGracePeriodSeconds': minimum: got 5, want 11"),
    ("embedded", "embedded.resources.limits.memory=4Q", "at '/embedded/resources/limits/memory': '4Q' does not match pattern"),
    ("embedded", "embedded.extraEnv[0].name=TZ", "missing property 'value'"),
    ("embedded", "image.repository=Registry", "at '/image/repository': 'Registry' does not match pattern"),
    ("embedded", "image.digest=sha256:1", "at '/image/digest': 'sha256:1' does not match pattern"),
    ("embedded", "window.time=3x", "at '/window/time': '3x' does not match pattern"),
    ("embedded", "window.bytes=much", "at '/window/bytes': 'much' does not match pattern"),
    ("embedded", "hosts.bootstrap=relay.example.com", "at '/hosts/bootstrap': 'relay.example.com' does not match pattern"),
    ("embedded", "subscribers.perAddress=some", "at '/subscribers/perAddress': value must be 'none'"),
    ("embedded", "subscribers.trustedProxies={proxy}", "at '/subscribers/trustedProxies/0': 'proxy' does not match pattern"),
    ("embedded", "service.port=0", "at '/service/port': minimum: got 0, want 1"),
    ("embedded", "service.type=ExternalName", "value must be one of 'ClusterIP', 'NodePort', 'LoadBalancer'"),
    ("embedded", "log.format=xml", "at '/log/format': value must be one of 'auto', 'text', 'json'"),
    ("embedded", "administration.password=hunter2", "at '/administration/password': got string, want object"),
    ("cluster", "kafka.addresses={kafka}", "at '/kafka/addresses/0': 'kafka' does not match pattern"),
    ("cluster", "kafka.sasl=gssapi", "value must be one of 'plain', 'scram-sha-256', 'scram-sha-512'"),
    ("cluster", "kafka.password.value=hunter2", "at '/kafka/password': additional properties 'value' not allowed"),
    ("cluster", "cluster.name=My_Cluster", "at '/cluster/name': 'My_Cluster' does not match pattern"),
    ("cluster", "cluster.lanes=0", "at '/cluster/lanes': minimum: got 0, want 1"),
    ("cluster", "crawl.replicas=many", "at '/crawl/replicas': got string, want integer"),
    ("cluster", "serve.autoscaling.metric=cpu", "value must be one of 'subscribers', 'bytesSent'"),
    ("cluster", "networkPolicy.extraEgress[0].roles={relay}", "at '/networkPolicy/extraEgress/0/roles/0': value must be one of"),
]

BY_TEMPLATE = [
    ("embedded", ["image.repository="], "image.repository is not set. No image is published yet"),
    ("embedded", ["embedded.replicas=2"], "embedded.replicas must be 1 (or 0, to stop it)"),
    ("embedded", ["kafka.addresses={kafka:9092}"], "are for mode cluster, and mode is embedded"),
    ("embedded", ["embedded.preStopSeconds=20"], "embedded.terminationGracePeriodSeconds is 30: it must be more than preStopSeconds (20)"),
    ("embedded", ["ingress.enabled=true", "ingress.host=a.example"], "set subscribers.trustedProxies to the networks its pods are in"),
    ("embedded", ["httpRoute.enabled=true"], "set subscribers.trustedProxies to the networks its pods are in"),
    ("embedded", ["ingress.enabled=true", "subscribers.trustedProxies={10.0.0.0/8}"], "ingress.enabled needs ingress.host"),
    ("embedded", ["httpRoute.enabled=true", "subscribers.trustedProxies={10.0.0.0/8}"], "httpRoute.enabled needs httpRoute.parentRefs"),
    ("embedded", ["limits.rules=a", "limits.configMap=b"], "limits.rules and limits.configMap are both set"),
    ("embedded", ["network.ca.certificates=a", "network.ca.configMap=b"], "network.ca.certificates and network.ca.configMap are both set"),
    ("embedded", ["extraEnv[0].name=MAINSTEM_BIND", "extraEnv[0].value=a"], "extraEnv sets MAINSTEM_BIND for embedded, which is already set by a value"),
    ("embedded", ["extraEnv[0].name=A", "extraEnv[0].value=a", "embedded.extraEnv[0].name=A", "embedded.extraEnv[0].value=b"], "already set by extraEnv"),
    ("embedded", ["identities.plcUrl=http://plc.plc:2582"], "identities.plcUrl is not https: use https, or network.dev"),
    ("cluster", ["hosts.bootstrap=http://relay"], "hosts.bootstrap is not https: use https, or network.dev"),
    ("embedded", ["hosts.list={pds.example.com:8443}"], "add 8443 to networkPolicy.publicPorts"),
    ("cluster", ["kafka.addresses=null"], "mode cluster needs Kafka: set kafka.addresses"),
    ("cluster", ["cql.addresses=null"], "mode cluster needs ScyllaDB or Cassandra: set cql.addresses"),
    ("cluster", ["strimzi.enabled=true"], "kafka.addresses and strimzi.enabled are both set"),
    ("cluster", ["scylla.enabled=true"], "cql.addresses and scylla.enabled are both set"),
    ("cluster", ["kafka.user=relay"], "kafka.user is set and kafka.password.secret is not"),
    ("cluster", ["cql.password.secret=cql"], "cql.password.secret is set and cql.user is not"),
    ("cluster", ["kafka.user=a", "kafka.password.secret=b", "kafka.sasl=plain"], "kafka.sasl plain sends the password as it is"),
    ("cluster", ["validate.replicas=65"], "65 validators would share 64 lanes"),
    ("cluster", ["validate.autoscaling.enabled=true", "validate.autoscaling.maxReplicas=65"], "65 validators would share 64 lanes"),
    ("cluster", ["crawl.replicas=65"], "65 crawlers would share 64 partitions of hosts"),
    ("cluster", ["serve.autoscaling.enabled=true", "serve.autoscaling.maxReplicas=1"], "serve.autoscaling.minReplicas is above maxReplicas"),
    ("cluster", ["serve.preStopSeconds=40"], "serve.terminationGracePeriodSeconds is 45: it must be more than preStopSeconds (40)"),
    ("operators", ["scylla.version="], "scylla.enabled needs scylla.version and scylla.agentVersion"),
    ("operators", ["strimzi.replicas=1"], "cluster.replication is 3 and strimzi.replicas 1"),
    ("operators", ["scylla.racks={a}"], "scylla has 1 nodes (racks times membersPerRack) and rows are to have 3 copies"),
]


class Refusals(unittest.TestCase):
    def refusal(self, values, sets):
        flags = [part for one in sets for part in ("--set", one)]
        code, _, errors = chart.helm("template", "test", str(chart.CHART), "-f", str(chart.VALUES / f"{values}.yaml"), *flags)
        self.assertNotEqual(code, 0, f"{sets} was taken")
        return errors

    def test_the_schema_refuses(self):
        for values, one, words in BY_SCHEMA:
            with self.subTest(one):
                errors = self.refusal(values, [one])
                self.assertIn("values don't meet the specifications of the schema", errors)
                self.assertIn(words, errors)

    def test_a_template_refuses_what_a_schema_cannot_say(self):
        for values, sets, words in BY_TEMPLATE:
            with self.subTest(sets):
                self.assertIn(words, self.refusal(values, sets))

    def test_each_sentence_of_the_templates_is_tried(self):
        said = "\n".join(self.refusal(values, sets) for values, sets, _ in BY_TEMPLATE)
        sources = "".join(path.read_text() for path in (chart.CHART / "templates").rglob("*") if path.is_file())
        sentences = re.findall(r'fail \(?(?:printf )?"([^"]+)"', sources)
        self.assertGreater(len(sentences), 20)
        for sentence in sentences:
            words = "[^\\n]*".join(re.escape(part) for part in re.split("%[sd]", sentence))
            self.assertRegex(said, words, "no test has values that are refused by this")


if __name__ == "__main__":
    unittest.main()
