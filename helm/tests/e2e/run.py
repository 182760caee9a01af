"""`make helm-e2e`: the chart in both modes on a real control plane, whose nodes kwok plays.

Real are the API server (it takes every object, and enforces the Pod Security Standard "restricted"), the controllers (jobs,
roll-outs, budgets, claims) and the scheduler. Played are kubelets: pods become ready, and commands end, without running.
"""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import yaml

from control_plane import ControlPlane, Failed

CHART = Path(__file__).resolve().parents[2]
VALUES = CHART / "tests" / "values"
HELM = os.environ["HELM_BIN"]
DRAIN_SECONDS = 10
WAIT = "90s"
ROLES = ("crawl", "validate", "sequence", "serve")
KINDS = ("pod,deployment,replicaset,statefulset,job,service,configmap,secret,serviceaccount,networkpolicy,poddisruptionbudget,"
         "horizontalpodautoscaler,ingress,httproute,servicemonitor,prometheusrule,persistentvolumeclaim")


def check(holds, what):
    if not holds:
        raise Failed(f"does not hold: {what}")
    print(f"  holds  {what}", flush=True)


class Release:
    """Helm on one release."""

    def __init__(self, plane, name, values):
        self.plane, self.name, self.values = plane, name, values

    def helm(self, command, *args, fails=False):
        environment = {**os.environ, "KUBECONFIG": str(self.plane.kubeconfig)}
        began = time.monotonic()
        done = subprocess.run([HELM, command, self.name, *args, "--namespace", "relay"], env=environment, capture_output=True,
                              text=True, timeout=300, check=False)
        if (done.returncode != 0) != fails:
            raise Failed(f"helm {command} {' '.join(map(str, args))} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        if "would violate PodSecurity" in done.stderr:
            raise Failed(done.stderr)
        print(f"  {command}, {time.monotonic() - began:.0f} s{', refused as it should be' if fails else ''}", flush=True)
        return done.stdout + done.stderr

    def install(self, *args):
        return self.helm("install", str(CHART), "-f", str(VALUES / f"{self.values}.yaml"), "--wait", "--timeout", WAIT, *args)

    def upgrade(self, *args, fails=False):
        return self.helm("upgrade", str(CHART), "-f", str(VALUES / f"{self.values}.yaml"), "--wait", "--timeout", WAIT, *args, fails=fails)

    def objects(self, kind, component=None):
        selector = f"app.kubernetes.io/instance={self.name}"
        if component:
            selector += f",app.kubernetes.io/component={component}"
        return self.plane.get(kind, "-l", selector)["items"]

    def pods(self, component):
        """Those that are not on their way out."""
        return [pod for pod in self.objects("pod", component) if "deletionTimestamp" not in pod["metadata"]]

    def env(self, component):
        """What all pods of a component are told, when the last old one is gone: Helm does not wait for that."""
        for kind in ("deployment", "statefulset"):
            for one in self.objects(kind, component):
                self.plane.kubectl("rollout", "status", "-n", "relay", f"{kind}/{one['metadata']['name']}", "--timeout=90s")
        (settings,) = {
            tuple(sorted((entry["name"], entry.get("value", "")) for entry in pod["spec"]["containers"][0]["env"]))
            for pod in self.pods(component)
        }
        return dict(settings)

    def nothing_is_left(self, *but):
        def left():
            found = self.objects(KINDS)
            return sorted(f"{one['kind']}/{one['metadata']['name']}" for one in found if one["kind"] not in but)

        # Pods and what they are made of go after the release, by the garbage collector.
        try:
            self.plane.wait("all objects are gone", lambda: not left())
        except Failed as late:
            raise Failed(f"{late}: {', '.join(left())}") from late
        check(not left(), f"nothing is left{' but ' + ', '.join(but) if but else ''}")


def is_ready(pod):
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", []))


def check_pods(release, components):
    for component in components:
        pods = release.pods(component)
        check(pods and all(is_ready(pod) and pod["spec"].get("nodeName") for pod in pods), f"{component}: {len(pods)} pods scheduled and ready")
        for pod in pods:
            sleep = pod["spec"]["containers"][0].get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
            grace = pod["spec"]["terminationGracePeriodSeconds"]
            if not grace > sleep + DRAIN_SECONDS:
                raise Failed(f"{component} has {grace} s to end")
        check(True, f"{component}: {grace} s to end, of which {sleep} wait and {DRAIN_SECONDS} drain")


def prepare(plane, home):
    for crd in sorted((Path(home) / "crds").glob("*.yaml")):
        plane.kubectl("apply", "--server-side", "-f", str(crd))
    nodes = [
        {
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": f"node-{number}", "labels": {
                "kubernetes.io/hostname": f"node-{number}", "topology.kubernetes.io/zone": f"zone-{number % 3}",
                "kubernetes.io/arch": "amd64", "disk": "nvme"}},
        }
        for number in range(4)
    ]
    namespace = {"apiVersion": "v1", "kind": "Namespace",
                 "metadata": {"name": "relay", "labels": {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}}}
    priority = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "high"}, "value": 1000}
    # There is nobody who makes volumes.
    volume = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "disk"},
              "spec": {"capacity": {"storage": "200Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "fast",
                       "hostPath": {"path": "/nowhere"}}}
    plane.apply(*nodes, namespace, priority, volume)
    plane.wait("nodes are ready", lambda: all(is_ready(node) for node in plane.get("node")["items"]))
    plane.wait("the namespace has its account", lambda: plane.get("serviceaccount", "--ignore-not-found")["items"])

    loose = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "loose", "namespace": "relay"},
             "spec": {"containers": [{"name": "a", "image": "a"}]}}
    try:
        plane.apply(loose)
    except Failed as refused:
        check("violates PodSecurity" in str(refused), "the namespace refuses a pod that is not restricted")
    else:
        raise Failed("the namespace took a pod that is not restricted")


def embedded(plane):
    print("mode embedded, with everything that it can have")
    release = Release(plane, "one", "embedded-full")
    notes = release.install()
    check("Have it checked" in notes, "the notes say what is next")
    check_pods(release, ["embedded"])
    (claim,) = release.objects("persistentvolumeclaim")
    check(claim["status"]["phase"] == "Bound", "the data are on a claim that is bound")
    for kind in ("service", "ingress", "httproute", "servicemonitor", "networkpolicy"):
        check(release.objects(kind), f"{kind}: {', '.join(one['metadata']['name'] for one in release.objects(kind))}")
    release.helm("test", "--timeout", "1m")

    (before,) = release.pods("embedded")
    release.upgrade("--set", "limits.rules=other")
    (after,) = release.pods("embedded")
    check(before["metadata"]["uid"] == after["metadata"]["uid"], "other limits leave the pod alone")
    release.upgrade("--set", "window.time=48h")
    (after,) = release.pods("embedded")
    check(before["metadata"]["uid"] != after["metadata"]["uid"], "another window makes a new pod")
    check(release.env("embedded")["MAINSTEM_WINDOW"] == "48h", "which is told of it")
    release.helm("rollback", "1", "--wait", "--timeout", WAIT)
    check(release.env("embedded")["MAINSTEM_WINDOW"] == "24h", "rolled back, it has the first window")
    (same,) = release.objects("persistentvolumeclaim")
    check(same["metadata"]["uid"] == claim["metadata"]["uid"], "and the same data")
    release.helm("uninstall", "--wait")
    release.nothing_is_left("PersistentVolumeClaim")
    check([one["metadata"]["uid"] for one in release.objects("persistentvolumeclaim")] == [claim["metadata"]["uid"]], "the data are kept")
    release.install("--set", "ingress.enabled=false")
    (pod,) = release.pods("embedded")
    check(pod["spec"]["volumes"] and release.objects("persistentvolumeclaim")[0]["metadata"]["uid"] == claim["metadata"]["uid"],
          "installed again, it has them")
    release.helm("uninstall", "--wait")
    plane.kubectl("delete", "-n", "relay", "persistentvolumeclaim", claim["metadata"]["name"])
    release.nothing_is_left()


class Beside:
    """Works every so many seconds on a thread of its own, for as long as it is entered."""

    def __init__(self, every):
        self.every, self.done = every, threading.Event()
        self.thread = threading.Thread(target=self.go_on)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()

    def go_on(self):
        while not self.done.wait(self.every):
            self.work()


class Balancer(Beside):
    """Plays the cloud, which gives Services of the type LoadBalancer their addresses: Helm waits for those."""

    def __init__(self, plane):
        super().__init__(every=1)
        self.plane = plane

    def work(self):
        status = '{"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}'
        for one in self.plane.get("service")["items"]:
            if one["spec"]["type"] == "LoadBalancer" and not one["status"]["loadBalancer"]:
                self.plane.kubectl("patch", "-n", "relay", f"service/{one['metadata']['name']}", "--subresource=status", "-p", status)


class Least(Beside):
    """The least number of nodes that serve, looked at while something is done."""

    def __init__(self, release, name):
        super().__init__(every=0.2)
        self.release, self.name, self.seen = release, name, []

    def work(self):
        status = self.release.plane.get(f"deployment/{self.name}")["status"]
        self.seen.append(status.get("availableReplicas", 0))


def hook(release):
    """How `cluster init` went, by what Helm keeps of the release."""
    status = yaml.safe_load(release.helm("status", "-o", "json"))
    return [(one["last_run"]["phase"]) for one in status["hooks"] if one["kind"] == "Job"]


def cluster(plane):
    print("mode cluster, with everything that it can have")
    release = Release(plane, "many", "cluster-full")
    release.install()
    check_pods(release, ROLES)
    check(hook(release) == ["Succeeded"], "cluster init was done first")
    check(not release.objects("job") and not release.objects("networkpolicy", "init"), "and nothing of it is left")
    crawlers = {pod["spec"]["nodeName"] for pod in release.pods("crawl")}
    check(len(crawlers) == 3, "three crawlers are on three nodes")
    scalers = {one["spec"]["scaleTargetRef"]["name"]: one for one in release.objects("horizontalpodautoscaler")}
    check(set(scalers) == {"many-mainstem-validate", "many-mainstem-serve"}, "autoscalers of validators and nodes that serve are taken")
    budgets = release.objects("poddisruptionbudget")
    plane.wait("budgets are counted", lambda: all(one["status"].get("currentHealthy") for one in release.objects("poddisruptionbudget")))
    allowed = {one["metadata"]["name"]: one["status"]["disruptionsAllowed"] for one in release.objects("poddisruptionbudget")}
    check(len(budgets) == 3 and all(number == 1 for number in allowed.values()), f"budgets let one go: {allowed}")
    release.helm("test", "--timeout", "1m")
    release.helm("uninstall", "--wait")
    release.nothing_is_left()

    print("mode cluster, as it is without extras")
    release = Release(plane, "plain", "cluster")
    release.install("--set", "serve.replicas=3", "--set", "serve.minReadySeconds=2", "--set", "metrics.rules.enabled=true",
                    "--set", "metrics.dashboards.enabled=true")
    check_pods(release, ROLES)
    files = [path.stem for path in (CHART / "files" / "rules").glob("*.yaml")]
    check(len(release.objects("prometheusrule")) == len(files), f"rules are taken: {', '.join(sorted(files)) or 'there are none'}")

    uids = {role: {pod["metadata"]["uid"] for pod in release.pods(role)} for role in ROLES}
    with Least(release, "plain-mainstem-serve") as least:
        release.upgrade("--set", "serve.replicas=3", "--set", "serve.minReadySeconds=2", "--set", "subscribers.max=2000")
    check(len(least.seen) > 5 and min(least.seen) >= 3, f"while nodes that serve were replaced, {min(least.seen)} of 3 were there at least")
    same = {role: uids[role] == {pod["metadata"]["uid"] for pod in release.pods(role)} for role in ROLES}
    check(same == {"crawl": True, "validate": True, "sequence": True, "serve": False}, "only those whose setting it was are new")
    release.upgrade("--set", "serve.autoscaling.enabled=true", "--set", "serve.minReadySeconds=2", "--set", "subscribers.max=2000")
    check(plane.get("deployment/plain-mainstem-serve")["spec"]["replicas"] == 3, "autoscaling takes over the number that is there")

    said = release.upgrade("--set", "cluster.replication=1", "--set-string", r"init.podAnnotations.e2e/exit-code=1", fails=True)
    check("pre-upgrade hooks failed" in said, "a cluster that differs from what is asked for stops the upgrade")
    (job,) = release.objects("job")
    check(job["status"].get("failed") == 1 and len(release.objects("pod", "init")) == 1, "init is not tried again, and its log can be read")
    check(all(is_ready(pod) for role in ROLES for pod in release.pods(role)), "the old processes go on")
    release.upgrade("--set", "serve.replicas=3", "--set", "subscribers.max=3000")
    check(not release.objects("job"), "the next upgrade takes the failed init away")
    check(not release.objects("horizontalpodautoscaler"), "and what it leaves out")
    check(release.env("serve")["MAINSTEM_SUBSCRIBERS_MAX"] == "3000", "nodes that serve have its setting")
    release.helm("rollback", "1", "--wait", "--timeout", WAIT)
    check(release.env("serve")["MAINSTEM_SUBSCRIBERS_MAX"] == "1000", "rolled back, they have their first one")
    release.helm("uninstall", "--wait")
    release.nothing_is_left()


def main():
    (home,) = sys.argv[1:]
    began = time.monotonic()
    with ControlPlane(home, Path(__file__).parent / "stages.yaml") as plane:
        print(f"a control plane of {plane.kubectl('version', '-o', 'yaml').split('gitVersion: ')[-1].split()[0]} is up, {time.monotonic() - began:.0f} s")
        prepare(plane, home)
        with Balancer(plane):
            embedded(plane)
            cluster(plane)
        plane.kubectl("delete", "namespace", "relay", "--wait", "--timeout=60s")
        check(not plane.get("namespace", "--field-selector=metadata.name=relay")["items"], "the namespace is gone")
    print(f"all of it took {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    try:
        main()
    except Failed as failed:
        sys.exit(f"helm-e2e: {failed}")
