"""The Dockerfile, the compose files and the systemd unit: what has to be true of each, where no Docker is at hand."""

import ipaddress
import os
import re
import shutil
import subprocess
import unittest

import yaml

from paths import ROOT

DEPLOY = ROOT / "deploy"
DRAIN_SECONDS = 10
COMPOSE = ["compose.yaml", "compose.cluster.yaml"]


def seconds(text):
    return int(re.fullmatch(r"(\d+)s", text)[1])


class Dockerfile(unittest.TestCase):
    def test_hadolint_has_nothing_to_say(self):
        ran = subprocess.run([os.environ["HADOLINT"], DEPLOY / "Dockerfile"], capture_output=True, text=True)
        self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)

    def test_it_builds_with_the_toolchain_of_the_repository(self):
        channel = re.search(r'channel = "(.+)"', (ROOT / "rust-toolchain.toml").read_text())[1]
        text = (DEPLOY / "Dockerfile").read_text()
        self.assertIn(f"rust:{channel}-bookworm", text)
        self.assertIn(f"RUSTUP_TOOLCHAIN={channel}", text)

    def test_it_says_the_version_of_the_repository(self):
        version = re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]
        self.assertIn(f"ARG VERSION={version}\n", (DEPLOY / "Dockerfile").read_text())


class Compose(unittest.TestCase):
    def services(self):
        for file in COMPOSE:
            for name, service in yaml.safe_load((DEPLOY / file).read_text())["services"].items():
                yield file, name, service

    def relays(self):
        return [each for each in self.services() if "MAINSTEM_IMAGE" in each[2]["image"]]

    def test_our_processes_have_no_rights_and_time_to_drain(self):
        self.assertEqual(len(self.relays()), 6)
        for file, name, service in self.relays():
            with self.subTest(file=file, service=name):
                self.assertIs(service["read_only"], True)
                self.assertEqual(service["cap_drop"], ["ALL"])
                self.assertIn("no-new-privileges:true", service["security_opt"])
                self.assertGreater(seconds(service["stop_grace_period"]), DRAIN_SECONDS)
                self.assertGreaterEqual(service["ulimits"]["nofile"]["soft"], 65536)
                self.assertIn("restart", service)

    def test_only_the_proxy_is_reached_from_outside(self):
        for file, name, service in self.services():
            for port in service.get("ports", []):
                with self.subTest(file=file, service=name, port=port):
                    self.assertTrue(name == "caddy" or port.startswith("127.0.0.1:"))

    def test_the_proxys_network_is_the_one_that_is_trusted(self):
        for file in COMPOSE:
            text = (DEPLOY / file).read_text()
            trusted = re.search(r"MAINSTEM_TRUSTED_PROXIES: (\S+)", text)[1]
            subnets = yaml.safe_load(text)["networks"]["relay"]["ipam"]["config"]
            self.assertEqual([ipaddress.ip_network(one["subnet"]) for one in subnets], [ipaddress.ip_network(trusted)])

    def test_what_is_not_said_is_not_set(self):
        for file, name, service in self.relays():
            for key, value in service["environment"].items():
                self.assertFalse(str(value).endswith(":-}"), f"{file} {name} {key}: an empty value is refused by the program")

    def test_images_say_their_version(self):
        for file, name, service in self.services():
            if "MAINSTEM_IMAGE" not in service["image"]:
                self.assertRegex(service["image"], r"^docker\.io/.+:.*\d", f"{file} {name}")

    def test_what_is_mounted_is_there_and_named(self):
        for file in COMPOSE:
            whole = yaml.safe_load((DEPLOY / file).read_text())
            for name, service in whole["services"].items():
                for mount in service.get("volumes", []):
                    source = mount.split(":")[0]
                    with self.subTest(file=file, service=name, mount=mount):
                        self.assertTrue((DEPLOY / source).exists() if source.startswith(".") else source in whole["volumes"])


class Systemd(unittest.TestCase):
    unit = (DEPLOY / "systemd/mainstem.service").read_text()

    def test_it_has_time_to_drain_and_is_started_again(self):
        self.assertGreater(int(re.search(r"^TimeoutStopSec=(\d+)$", self.unit, re.M)[1]), DRAIN_SECONDS)
        self.assertIn("\nRestart=always\n", self.unit)
        self.assertGreaterEqual(int(re.search(r"^LimitNOFILE=(\d+)$", self.unit, re.M)[1]), 65536)

    @unittest.skipUnless(shutil.which("systemd-analyze"), "no systemd-analyze here")
    def test_systemd_takes_it_and_finds_little_exposed(self):
        verified = subprocess.run(
            ["systemd-analyze", "verify", DEPLOY / "systemd/mainstem.service"], capture_output=True, text=True
        )
        # The program need not be installed where this is tested.
        said = [line for line in verified.stderr.splitlines() if "is not executable" not in line]
        self.assertEqual([line for line in said if "mainstem.service" in line], [])
        security = ["systemd-analyze", "security", "--offline=true", "--threshold=20"]
        exposed = subprocess.run([*security, DEPLOY / "systemd/mainstem.service"], capture_output=True, text=True)
        self.assertEqual(exposed.returncode, 0, exposed.stdout[-500:] + exposed.stderr)


if __name__ == "__main__":
    unittest.main()
