"""Where what is tested stands, and how it is read."""

import os
import re
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy/prometheus"
RULES = ["recording.yaml", "alerts.yaml", "coverage.yaml"]


def rules():
    """All rules, of all files."""
    for name in RULES:
        for group in yaml.safe_load((PROMETHEUS / name).read_text())["groups"]:
            yield from group["rules"]


def alerts():
    return [rule for rule in rules() if "alert" in rule]


def promtool(*arguments):
    return subprocess.run([os.environ["PROMTOOL"], *map(str, arguments)], capture_output=True, text=True)


def metrics_in_source():
    """The names that the program's source registers."""
    names = set()
    for crate in ["relay", "crawler", "validator", "storage", "runtime"]:
        for file in (ROOT / crate).rglob("src/**/*.rs"):
            names |= set(re.findall(r'"(mainstem_[a-z0-9_]+)"', file.read_text()))
    return names


def metrics_in(expression):
    """The program's metrics that a query names, a histogram by its own name."""
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\bmainstem_[a-z0-9_]+", expression)}
