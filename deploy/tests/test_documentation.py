"""docs/metrics.md lists what the program has, and the guides' links lead somewhere."""

import re
import unittest

from paths import ROOT, metrics_in_source

GUIDES = ["docs/runbook.md", "docs/deploy.md", "docs/metrics.md"]


def anchors(text):
    """The anchors of headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


class Documentation(unittest.TestCase):
    def test_metrics_are_those_of_the_source(self):
        listed = re.findall(r"^\| `(mainstem_\w+)`", (ROOT / "docs/metrics.md").read_text(), re.M)
        self.assertEqual(len(listed), len(set(listed)), "one is listed twice")
        self.assertEqual(set(listed), set(metrics_in_source()))

    def test_links_lead_somewhere(self):
        for guide in GUIDES:
            file = ROOT / guide
            text = file.read_text()
            for target in re.findall(r"\]\(([^)]+)\)", text):
                if target.startswith("http"):
                    continue
                path, _, anchor = target.partition("#")
                other = (file.parent / path).resolve() if path else file
                with self.subTest(guide=guide, target=target):
                    self.assertTrue(other.exists())
                    if anchor:
                        self.assertIn(anchor, anchors(other.read_text()))


if __name__ == "__main__":
    unittest.main()
