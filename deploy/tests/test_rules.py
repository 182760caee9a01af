"""Prometheus' rules: sound, each alert proved both ways, and none without a chapter of the runbook."""

import re
import unittest

import yaml

from paths import PROMETHEUS, ROOT, alerts, metrics_in, metrics_in_source, promtool, rules

CHAPTER = re.compile(r"^#### (\w+)\n\n- \*\*What it means\.\*\* .+\n- \*\*How to look\.\*\* .+\n- \*\*What to do\.\*\* .+$", re.M)


class Rules(unittest.TestCase):
    def test_prometheus_takes_the_configurations_and_their_rules(self):
        checked = promtool("check", "config", PROMETHEUS / "single.yml", PROMETHEUS / "cluster.yml")
        self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)

    def test_alerts_fire_and_are_silent_as_they_should(self):
        ran = promtool("test", "rules", *sorted((PROMETHEUS / "tests").glob("*.yaml")))
        self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)

    def test_each_alert_has_a_case_where_it_fires_and_one_where_it_does_not(self):
        fires, silent = set(), set()
        for file in (PROMETHEUS / "tests").glob("*.yaml"):
            for test in yaml.safe_load(file.read_text())["tests"]:
                for case in test["promql_expr_test"]:
                    name = re.fullmatch(r'count\(ALERTS\{alertname="(\w+)", alertstate="firing"\}\)', case["expr"])[1]
                    (fires if case["exp_samples"] else silent).add(name)
        names = {alert["alert"] for alert in alerts()}
        self.assertEqual((fires, silent), (names, names))

    def test_each_alert_says_how_bad_it_is_and_where_to_read_on(self):
        for alert in alerts():
            with self.subTest(alert["alert"]):
                self.assertIn(alert["labels"]["severity"], {"critical", "warning"})
                notes = alert["annotations"]
                self.assertTrue(notes["summary"] and notes["description"])
                self.assertEqual(notes["runbook_url"], f"docs/runbook.md#{alert['alert'].lower()}")

    def test_the_runbook_has_a_whole_chapter_for_each_alert_and_for_no_other(self):
        chapters = CHAPTER.findall((ROOT / "docs/runbook.md").read_text())
        self.assertEqual(sorted(chapters), sorted(alert["alert"] for alert in alerts()))

    def test_rules_name_metrics_that_the_program_has(self):
        known = metrics_in_source()
        for rule in rules():
            used = set(metrics_in(rule["expr"]))
            self.assertLessEqual(used, known, rule)

    def test_rules_name_sums_that_are_recorded(self):
        recorded = {rule["record"] for rule in rules() if "record" in rule}
        for rule in rules():
            self.assertLessEqual(set(re.findall(r"mainstem:\w+:\w+", rule["expr"])), recorded, rule)


if __name__ == "__main__":
    unittest.main()
