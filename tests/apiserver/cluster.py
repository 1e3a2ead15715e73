"""A real Kubernetes API server with etcd and the controllers that tests need. No node, so no pod runs here."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml

from tests.apiserver.binaries import binary, custom_resource_definitions

T = TypeVar("T")
_CONTROLLERS = (
    "cronjob-controller,daemonset-controller,deployment-controller,endpointslice-controller,job-controller,"
    "namespace-controller,replicaset-controller,serviceaccount-controller,statefulset-controller"
)


class Cluster:
    """An API server that runs, and kubectl as its administrator."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig

    def kubectl(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run kubectl; what it said and its exit code."""
        return subprocess.run(
            [binary("kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments],
            input=stdin, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def apply(self, manifest: str, *, namespace: str = "default") -> str:
        """Server-side apply with strict field validation: unknown fields fail. What kubectl said, warnings included."""
        done = self.kubectl(
            "apply", "--server-side", "--validate=strict", "--force-conflicts", f"--namespace={namespace}", "-f", "-",
            stdin=manifest,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def get(self, *arguments: str) -> Any:
        """An object, or a list's items."""
        done = self.kubectl("get", *arguments, "-o", "yaml")
        assert done.returncode == 0, done.stderr
        found = yaml.safe_load(done.stdout)
        return found["items"] if found["kind"] == "List" else found

    def wait(self, what: str, look: Callable[[], T], seconds: float = 30.0) -> T:
        """What `look` finds, as soon as it finds anything."""
        until = time.monotonic() + seconds
        while not (found := look()):
            assert time.monotonic() < until, f"{what}: not within {seconds:g} s"
            time.sleep(0.2)
        return found

    @contextlib.contextmanager
    def namespace(self, *, enforce: str = "restricted") -> Iterator[str]:
        """A namespace of its own that enforces a level of Pod Security."""
        name = f"test-{secrets.token_hex(4)}"
        labels = {"pod-security.kubernetes.io/enforce": enforce, "pod-security.kubernetes.io/warn": enforce}
        self.apply(
            yaml.safe_dump({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        )
        self.wait("the namespace's ServiceAccount", lambda: self.get("serviceaccounts", "-n", name))
        yield name
        self.kubectl("delete", "namespace", name, "--wait=false")


@contextlib.contextmanager
def running() -> Iterator[Cluster]:
    """etcd, kube-apiserver and kube-controller-manager, started together and ended at the end."""
    folder = Path(tempfile.mkdtemp(prefix="pegel-apiserver-"))
    with contextlib.ExitStack() as ending:
        ending.callback(shutil.rmtree, folder, ignore_errors=True)
        etcd, peer, api, controllers = _free_ports(4)
        _start(ending, folder, "etcd", [
            f"--data-dir={folder}/etcd", "--unsafe-no-fsync",
            f"--listen-client-urls=http://127.0.0.1:{etcd}", f"--advertise-client-urls=http://127.0.0.1:{etcd}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
        ])  # fmt: skip
        key, token = folder / "service-accounts.pem", secrets.token_hex(16)
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        tokens = folder / "tokens.csv"
        tokens.write_text(f"{token},admin,admin,system:masters\n")
        apiserver = _start(ending, folder, "kube-apiserver", [
            f"--etcd-servers=http://127.0.0.1:{etcd}", f"--secure-port={api}", "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1", f"--cert-dir={folder}/certificates",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}", f"--token-auth-file={tokens}", "--authorization-mode=RBAC",
            "--endpoint-reconciler-type=none",
        ])  # fmt: skip
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(_kubeconfig(api, folder / "certificates" / "apiserver.crt", token))
        cluster = Cluster(kubeconfig)

        def answers() -> bool:
            assert apiserver.poll() is None, (folder / "kube-apiserver.log").read_text()[-2000:]
            return cluster.kubectl("get", "--raw=/readyz").returncode == 0

        cluster.wait("the API server", answers, 60)
        _start(ending, folder, "kube-controller-manager", [
            f"--kubeconfig={kubeconfig}", f"--controllers={_CONTROLLERS}", f"--secure-port={controllers}",
            "--bind-address=127.0.0.1", f"--cert-dir={folder}/controllers", "--leader-elect=false",
            f"--service-account-private-key-file={key}",
        ])  # fmt: skip
        cluster.apply("---\n".join(path.read_text() for path in custom_resource_definitions()))
        cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        cluster.wait("the controllers", lambda: cluster.get("serviceaccounts", "-n", "default"))
        yield cluster


def _start(ending: contextlib.ExitStack, folder: Path, name: str, arguments: list[str]) -> "subprocess.Popen[bytes]":
    with open(folder / f"{name}.log", "wb") as log:
        process = subprocess.Popen([binary(name), *arguments], stdout=log, stderr=log, start_new_session=True)

    def end() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    ending.callback(end)
    return process


def _kubeconfig(port: int, certificate: Path, token: str) -> str:
    cluster = {
        "server": f"https://127.0.0.1:{port}", "tls-server-name": "kubernetes",
        "certificate-authority": str(certificate),
    }  # fmt: skip
    return yaml.safe_dump({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
    })  # fmt: skip


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]
