"""Where the Kubernetes components are: KUBEBUILDER_ASSETS, as envtest has it, or what install-kubernetes has built."""

import os
import subprocess
from functools import cache
from pathlib import Path

import pytest

_INSTALL = Path(__file__).with_name("install-kubernetes")


def binary(name: str) -> str:
    """The path of etcd, kube-apiserver, kube-controller-manager, kubectl or helm. Missing, the test fails in CI."""
    given = Path(os.environ.get("KUBEBUILDER_ASSETS", "/nowhere"), name)
    return str(given if given.exists() else _built() / name)


def custom_resource_definitions() -> list[Path]:
    """The prometheus-operator's PodMonitor, PrometheusRule and ServiceMonitor."""
    return sorted((_built() / "crds").glob("*.yaml"))


@cache
def _built() -> Path:
    found = subprocess.run([_INSTALL, "--where"], capture_output=True, text=True, check=False)
    if found.returncode:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(found.stderr.strip())
    return Path(found.stdout.strip())
