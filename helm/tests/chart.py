"""Runs Helm on the chart, and finds things in what it renders."""

import functools
import os
import subprocess
from pathlib import Path

import yaml

CHART = Path(__file__).resolve().parent.parent
REPOSITORY = CHART.parent
VALUES = CHART / "tests" / "values"
HELM = os.environ["HELM_BIN"]

# The time that the relay takes at most to end after SIGTERM: DRAIN_MAX in relay/src/main.rs.
DRAIN_SECONDS = 10

EMBEDDED = ("embedded", "embedded-full")
CLUSTER = ("cluster", "cluster-full", "operators")
ALL = EMBEDDED + CLUSTER
ROLES = ("embedded", "crawl", "validate", "sequence", "serve")


def helm(*args):
    """Its exit code, output and errors."""
    done = subprocess.run([HELM, *args], capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


@functools.cache
def template(values, *args):
    """What is rendered, as text, of one of the files of values."""
    code, out, errors = helm("template", "test", str(CHART), "--namespace", "relay", "-f", str(VALUES / f"{values}.yaml"), *args)
    assert code == 0, errors
    return out


def objects(values, *args):
    return [found for found in yaml.safe_load_all(template(values, *args)) if found]


def of_kind(found, kind):
    return [one for one in found if one["kind"] == kind]


def component(one):
    return one["metadata"]["labels"].get("app.kubernetes.io/component")


def the(found, kind, wanted):
    """The one object of a kind and component."""
    (one,) = [one for one in of_kind(found, kind) if component(one) == wanted]
    return one


def pods(found):
    """Each pod, or template of pods, by what makes it: (kind/name, metadata, spec)."""
    for one in found:
        name = f"{one['kind']}/{one['metadata']['name']}"
        if one["kind"] == "Pod":
            yield name, one["metadata"], one["spec"]
        elif one["kind"] in ("Deployment", "StatefulSet", "Job"):
            template_of = one["spec"]["template"]
            yield name, template_of["metadata"], template_of["spec"]


def env(spec):
    (container,) = spec["containers"]
    return {entry["name"]: entry.get("value") for entry in container.get("env", [])}
