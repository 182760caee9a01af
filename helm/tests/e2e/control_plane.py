"""A Kubernetes control plane on this machine: real etcd, API server, controllers and scheduler; kwok plays the nodes.

Everything listens on free ports of 127.0.0.1, lives in one temporary folder, and is stopped by its process id.
"""

import json
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

START_SECONDS = 120


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Failed(Exception):
    """A command did not do what it should."""


class ControlPlane:
    """`home` is what scripts/helm-kubernetes has made."""

    def __init__(self, home, stages):
        self.bin = Path(home) / "bin"
        self.stages = [*sorted((Path(home) / "stages").glob("*.yaml")), Path(stages)]
        self.run = Path(tempfile.mkdtemp(prefix="mainstem-kubernetes-"))
        self.kubeconfig = self.run / "kubeconfig"
        self.processes = []

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        etcd, peer, api, controllers, scheduler, kwok = (free_port() for _ in range(6))
        key = self.run / "accounts.key"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        subprocess.run(["openssl", "rsa", "-in", key, "-pubout", "-out", f"{key}.pub"], check=True, capture_output=True)
        token = os.urandom(16).hex()
        (self.run / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n')
        self.write_kubeconfig(api, token)

        self.spawn("etcd", "etcd", f"--data-dir={self.run}/etcd", f"--listen-client-urls=http://127.0.0.1:{etcd}",
                   f"--advertise-client-urls=http://127.0.0.1:{etcd}", f"--listen-peer-urls=http://127.0.0.1:{peer}",
                   f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}", f"--initial-cluster=default=http://127.0.0.1:{peer}",
                   "--unsafe-no-fsync=true")
        self.spawn("apiserver", "kube-apiserver", f"--etcd-servers=http://127.0.0.1:{etcd}", "--bind-address=127.0.0.1",
                   "--advertise-address=127.0.0.1", f"--secure-port={api}", f"--cert-dir={self.run}/certs-apiserver",
                   f"--service-account-key-file={key}.pub", f"--service-account-signing-key-file={key}",
                   "--service-account-issuer=https://kubernetes.default.svc", "--service-cluster-ip-range=10.96.0.0/16",
                   f"--token-auth-file={self.run}/tokens.csv", "--authorization-mode=RBAC", "--endpoint-reconciler-type=none",
                   # Debian's etcd is too old for lists by watches; clients would try them again and again.
                   "--feature-gates=WatchList=false")
        self.wait_for_api(api, token)
        self.spawn("controllers", "kube-controller-manager", f"--kubeconfig={self.kubeconfig}",
                   f"--service-account-private-key-file={key}", "--bind-address=127.0.0.1", f"--secure-port={controllers}",
                   "--leader-elect=false", f"--cert-dir={self.run}/certs-controllers", "--node-monitor-grace-period=120s")
        self.spawn("scheduler", "kube-scheduler", f"--kubeconfig={self.kubeconfig}", "--bind-address=127.0.0.1",
                   f"--secure-port={scheduler}", "--leader-elect=false", f"--cert-dir={self.run}/certs-scheduler")
        configs = [f"--config={stage}" for stage in self.stages]
        self.spawn("kwok", "kwok", f"--kubeconfig={self.kubeconfig}", *configs, "--node-lease-duration-seconds=40",
                   "--manage-all-nodes=true", "--cidr=10.244.0.0/16", "--node-ip=127.0.0.1", f"--server-address=127.0.0.1:{kwok}")

    def spawn(self, name, command, *args):
        log = (self.run / f"{name}.log").open("w")
        self.processes.append((name, subprocess.Popen([self.bin / command, *args], stdout=log, stderr=log, start_new_session=True)))

    def write_kubeconfig(self, port, token):
        server = {"server": f"https://127.0.0.1:{port}", "insecure-skip-tls-verify": True}
        self.kubeconfig.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "e2e",
            "clusters": [{"name": "e2e", "cluster": server}],
            "users": [{"name": "admin", "user": {"token": token}}],
            "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": "admin"}}],
        }))

    def wait_for_api(self, port, token):
        # It makes itself a certificate that nobody knows.
        trust_any = ssl._create_unverified_context()
        request = urllib.request.Request(f"https://127.0.0.1:{port}/readyz", headers={"Authorization": f"Bearer {token}"})
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            for name, process in self.processes:
                if process.poll() is not None:
                    raise Failed(f"{name} ended at once:\n{(self.run / f'{name}.log').read_text()[-2000:]}")
            try:
                if urllib.request.urlopen(request, context=trust_any, timeout=2).read() == b"ok":
                    return
            except OSError:
                pass
            time.sleep(0.2)
        raise Failed(f"the API server was not ready after {START_SECONDS} s")

    def stop(self):
        for _, process in reversed(self.processes):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if os.environ.get("KEEP_LOGS"):
            print(f"logs are in {self.run}")
        else:
            shutil.rmtree(self.run)

    # === What is asked of it ===

    def kubectl(self, *args, stdin=None):
        done = subprocess.run([self.bin / "kubectl", f"--kubeconfig={self.kubeconfig}", *args], input=stdin, capture_output=True,
                              text=True, timeout=120, check=False)
        if done.returncode:
            raise Failed(f"kubectl {' '.join(args)}: {done.stderr}")
        return done.stdout

    def apply(self, *objects):
        self.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def get(self, kind, *args, namespace="relay"):
        return json.loads(self.kubectl("get", kind, "-n", namespace, "-o", "json", *args))

    def wait(self, what, holds, seconds=60):
        """Until `holds()` is true."""
        until = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > until:
                raise Failed(f"not after {seconds} s: {what}")
            time.sleep(0.3)
