"""What is of one process alone: its data."""

import unittest

import chart


class Data(unittest.TestCase):
    def test_it_is_on_a_claim_that_outlives_the_release(self):
        spec = chart.the(chart.objects("embedded-full"), "StatefulSet", "embedded")["spec"]
        self.assertEqual(spec["replicas"], 1)
        self.assertEqual(spec["persistentVolumeClaimRetentionPolicy"], {"whenDeleted": "Retain", "whenScaled": "Retain"})
        (claim,) = spec["volumeClaimTemplates"]
        self.assertEqual(claim["spec"]["resources"]["requests"]["storage"], "200Gi")
        self.assertEqual(claim["spec"]["storageClassName"], "fast")
        (container,) = spec["template"]["spec"]["containers"]
        self.assertIn({"name": claim["metadata"]["name"], "mountPath": "/data"}, container["volumeMounts"])
        self.assertEqual(chart.env(spec["template"]["spec"])["MAINSTEM_DATA_DIR"], "/data")
        self.assertEqual(container["args"], ["run"])

    def test_a_claim_that_is_there_is_used(self):
        spec = chart.the(chart.objects("embedded", "--set", "embedded.storage.existingClaim=old"), "StatefulSet", "embedded")["spec"]
        self.assertNotIn("volumeClaimTemplates", spec)
        self.assertEqual(spec["template"]["spec"]["volumes"], [{"name": "data", "persistentVolumeClaim": {"claimName": "old"}}])

    def test_it_can_be_stopped(self):
        self.assertEqual(chart.the(chart.objects("embedded", "--set", "embedded.replicas=0"), "StatefulSet", "embedded")["spec"]["replicas"], 0)

    def test_its_claim_does_not_change_with_the_chart(self):
        # Templates of claims can't be changed once they are made.
        (claim,) = chart.the(chart.objects("embedded"), "StatefulSet", "embedded")["spec"]["volumeClaimTemplates"]
        self.assertEqual(set(claim["metadata"]["labels"]), {"app.kubernetes.io/name", "app.kubernetes.io/instance"})


if __name__ == "__main__":
    unittest.main()
