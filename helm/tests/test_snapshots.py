"""What is rendered, held against what was rendered when somebody last looked. `UPDATE=1 make helm-test` takes it over."""

import os
import unittest

import chart

SNAPSHOTS = chart.CHART / "tests" / "snapshots"


class Snapshots(unittest.TestCase):
    maxDiff = None

    def test_rendered_as_before(self):
        for values in chart.ALL:
            with self.subTest(values):
                rendered = chart.template(values)
                path = SNAPSHOTS / f"{values}.yaml"
                if os.environ.get("UPDATE"):
                    path.write_text(rendered)
                self.assertTrue(path.exists(), f"{path} is missing: UPDATE=1 make helm-test writes it")
                self.assertEqual(path.read_text(), rendered, "if that is as it should be: UPDATE=1 make helm-test")

    def test_there_is_none_of_values_that_are_gone(self):
        self.assertEqual({path.stem for path in SNAPSHOTS.iterdir()}, set(chart.ALL))
        self.assertEqual({path.stem for path in chart.VALUES.iterdir()}, set(chart.ALL))


if __name__ == "__main__":
    unittest.main()
