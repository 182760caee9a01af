"""Helm's own opinion of the chart."""

import unittest

import chart


class Lint(unittest.TestCase):
    def test_both_modes_pass_strictly(self):
        for values in chart.ALL:
            with self.subTest(values):
                code, out, errors = chart.helm("lint", str(chart.CHART), "--strict", "-f", str(chart.VALUES / f"{values}.yaml"))
                self.assertEqual(code, 0, out + errors)

    def test_the_package_has_no_tests_in_it(self):
        import tarfile
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            code, out, errors = chart.helm("package", str(chart.CHART), "--destination", folder)
            self.assertEqual(code, 0, errors)
            with tarfile.open(out.strip().rsplit(" ", 1)[1]) as package:
                names = package.getnames()
        self.assertIn("mainstem/values.schema.json", names)
        self.assertEqual([name for name in names if name.startswith("mainstem/tests/")], [])


if __name__ == "__main__":
    unittest.main()
