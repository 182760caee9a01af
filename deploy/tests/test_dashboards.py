"""The dashboards are what their generator writes, and ask for what there is. That they show something, tests/dashboards says."""

import json
import sys
import unittest

from paths import ROOT, metrics_in, metrics_in_source, rules

GRAFANA = ROOT / "deploy/grafana"
sys.path.insert(0, str(GRAFANA))
import generate  # noqa: E402


class Dashboards(unittest.TestCase):
    def test_they_are_what_the_generator_writes(self):
        written = {file.stem: file.read_text() for file in GRAFANA.glob("*.json")}
        self.assertEqual(written, {name: generate.text(name) for name in generate.DASHBOARDS})

    def test_they_ask_for_metrics_that_the_program_has_and_sums_that_are_recorded(self):
        known = metrics_in_source()
        recorded = {rule["record"] for rule in rules() if "record" in rule}
        for name in generate.DASHBOARDS:
            for panel in json.loads(generate.text(name))["panels"]:
                for target in panel["targets"]:
                    with self.subTest(dashboard=name, panel=panel["title"]):
                        query = target["expr"]
                        used = metrics_in(query)
                        self.assertLessEqual(used, known)
                        for part in query.split("{")[:-1]:
                            word = part.split("(")[-1]
                            if word.startswith("mainstem:"):
                                self.assertIn(word, recorded)

    def test_titles_in_a_dashboard_differ(self):
        for name, (_, panels) in generate.DASHBOARDS.items():
            titles = [title for title, _, _ in panels]
            self.assertEqual(len(titles), len(set(titles)), name)


if __name__ == "__main__":
    unittest.main()
