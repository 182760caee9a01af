"""The compose files as Docker Compose's own loader understands them, with the settings that docs/deploy.md begins with."""

import json
import os
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
FILES = ["compose.yaml", "compose.cluster.yaml"]
PROGRAM = "mainstem"
# What compose and Caddy read, and the program does not.
NOT_THE_PROGRAMS = {"MAINSTEM_HOSTNAME", "MAINSTEM_UPSTREAM", "MAINSTEM_IMAGE"}


def settings_of_the_program():
    sources = [ROOT / "relay/src/cli.rs", *(ROOT / "relay/src/cli").glob("*.rs")]
    text = "".join(file.read_text() for file in sources)
    return set(re.findall(r'env = "(MAINSTEM_[A-Z_]+)"', text))


class Compose(unittest.TestCase):
    def setUp(self):
        # A copy, so that an operator's own settings beside the files are neither read nor written over.
        self.work = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.work)
        for file in FILES:
            shutil.copy(DEPLOY / file, self.work / file)
        shutil.copy(DEPLOY / "compose.env.example", self.work / ".env")

    def load(self, file):
        clean = {key: value for key, value in os.environ.items() if not key.startswith("MAINSTEM_")}
        return subprocess.run([os.environ["COMPOSE_CONFIG"], self.work / file], env=clean, capture_output=True, text=True)

    def services(self, file):
        ran = self.load(file)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        return json.loads(ran.stdout)["services"]

    def relays(self):
        for file in FILES:
            for name, service in self.services(file).items():
                if service["image"] == PROGRAM:
                    yield file, name, service

    def test_both_are_taken_with_the_example_of_settings(self):
        self.assertIn("mainstem", self.services("compose.yaml"))
        self.assertLessEqual({"init", "crawl", "validate", "sequence", "serve"}, set(self.services("compose.cluster.yaml")))

    def test_a_key_that_does_not_exist_is_refused(self):
        text = (self.work / "compose.yaml").read_text()
        (self.work / "compose.yaml").write_text(text.replace("cap_drop:", "cap_dropped:", 1))
        ran = self.load("compose.yaml")
        self.assertNotEqual(ran.returncode, 0)
        self.assertIn("cap_dropped", ran.stderr)

    def test_a_server_without_a_name_is_refused(self):
        (self.work / ".env").write_text("MAINSTEM_BOOTSTRAP=https://relay.example.org\n")
        ran = self.load("compose.yaml")
        self.assertNotEqual(ran.returncode, 0)
        self.assertIn("the name under which the relay is reached", ran.stderr)

    def test_every_setting_is_one_of_the_program(self):
        known = settings_of_the_program()
        said = {key for _, _, service in self.relays() for key in service["environment"]}
        for file in ["compose.env.example", "systemd/mainstem.env.example", "systemd/mainstem.service", "Dockerfile"]:
            text = (DEPLOY / file).read_text()
            said |= set(re.findall(r"\b(MAINSTEM_[A-Z_]+)=", text)) - {"MAINSTEM_COMMIT"}
        self.assertGreaterEqual(len(said), 10)
        self.assertEqual(said - known - NOT_THE_PROGRAMS, set())

    def test_nothing_is_set_to_nothing(self):
        for file, name, service in self.relays():
            for key, value in service["environment"].items():
                # Null: not set, unlike empty, which the program refuses.
                self.assertNotEqual(value, "", f"{file} {name} {key}")

    def test_roles_wait_until_the_cluster_is_made(self):
        services = self.services("compose.cluster.yaml")
        for role in ["crawl", "validate", "sequence", "serve"]:
            condition = services[role]["depends_on"]["init"]["condition"]
            self.assertEqual(condition, "service_completed_successfully", role)
        for server in ["kafka", "scylla"]:
            self.assertEqual(services["init"]["depends_on"][server]["condition"], "service_healthy")
            self.assertIn("healthcheck", services[server])


if __name__ == "__main__":
    unittest.main()
