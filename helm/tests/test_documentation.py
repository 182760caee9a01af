"""Every value is in the schema and in the README, and the values of the documentation are good ones."""

import json
import re
import tempfile
import unittest

import yaml

import chart

VALUES = yaml.safe_load((chart.CHART / "values.yaml").read_text())
SCHEMA = json.loads((chart.CHART / "values.schema.json").read_text())


def leaves(value, path=()):
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    else:
        yield path


def resolve(schema):
    while "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    return schema


class Documentation(unittest.TestCase):
    def test_every_value_is_in_the_schema(self):
        for path in leaves(VALUES):
            schema = SCHEMA
            for key in path:
                schema = resolve(schema)
                if "properties" not in schema:  # A map of the operator's own keys.
                    self.assertIsInstance(schema["additionalProperties"], dict, path)
                    break
                self.assertIn(key, schema["properties"], path)
                schema = schema["properties"][key]

    def test_every_value_of_the_schema_is_in_the_values(self):
        def properties(schema, path=()):
            schema = resolve(schema)
            for key, inner in schema.get("properties", {}).items():
                yield from properties(inner, (*path, key))
            if path and "properties" not in schema:
                yield path

        for path in properties(SCHEMA):
            if path[0] == "global" or path[-1] in ("requests", "limits"):  # Of Helm; of Kubernetes.
                continue
            value = VALUES
            for key in path:
                self.assertIn(key, value, path)
                value = value[key]

    def test_nothing_is_taken_that_is_not_known(self):
        def objects(schema, path=""):
            if isinstance(schema, dict):
                if "properties" in schema:
                    yield path, schema
                for key, inner in schema.items():
                    yield from objects(inner, f"{path}/{key}")

        for path, schema in objects(SCHEMA):
            self.assertIs(schema.get("additionalProperties"), False, path)

    def test_every_value_is_in_the_readme(self):
        rows = set(re.findall(r"^\| `([^`]+)`", (chart.CHART / "README.md").read_text(), re.MULTILINE))
        missing = set()
        for path in leaves(VALUES):
            # Resources and maps are described as a whole; what all roles have, once.
            whole = [".".join(path[:count]) for count in range(1, len(path) + 1)]
            if path[0] in chart.ROLES:
                whole += [".".join(("ROLE", *path[1:count])) for count in range(2, len(path) + 1)]
            if not rows & set(whole):
                missing.add(".".join(path))
        self.assertEqual(missing, set())

    def test_the_readme_has_nothing_that_is_gone(self):
        rows = set(re.findall(r"^\| `([^`]+)`", (chart.CHART / "README.md").read_text(), re.MULTILINE))
        for row in rows:
            for name in [row.replace("ROLE", role) for role in chart.ROLES] if row.startswith("ROLE.") else [row]:
                value = VALUES
                for key in name.split("."):
                    if key not in value and row.startswith("ROLE."):  # Some roles have it.
                        break
                    self.assertIn(key, value, row)
                    value = value[key]

    def test_the_values_of_the_documentation_are_taken(self):
        text = (chart.REPOSITORY / "docs" / "kubernetes.md").read_text()
        blocks = re.findall(r"^```yaml\n(# values.*?)^```", text, re.MULTILINE | re.DOTALL)
        self.assertGreaterEqual(len(blocks), 2)
        for block in blocks:
            values = yaml.safe_load(block)
            with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
                file.write(block)
                file.flush()
                # Pieces that say what to add are laid over a whole of the mode they are for.
                base = "cluster" if {"crawl", "validate", "sequence", "serve", "cluster"} & set(values) else "embedded"
                whole = [] if "image" in values else ["-f", str(chart.VALUES / f"{base}.yaml")]
                code, _, errors = chart.helm("template", "test", str(chart.CHART), *whole, "-f", file.name)
                with self.subTest(block.splitlines()[0]):
                    self.assertEqual(code, 0, errors)


if __name__ == "__main__":
    unittest.main()
