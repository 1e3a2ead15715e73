"""What helm says after an installation: what is there, what isn't and why, and what comes next."""

import pytest

from tests.helm.rendering import CHART, NAMES, VALUES, helm

pytestmark = pytest.mark.integration


def notes(name: str, *settings: str) -> str:
    """The notes of an entry of the matrix, on a cluster without the Prometheus operator."""
    answer = helm(
        "install", "pegel", CHART, "--namespace", "pegel", "--dry-run=client", "--values", VALUES / f"{name}.yaml",
        *settings,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.partition("\nNOTES:\n")[2]


@pytest.mark.parametrize("name", NAMES)
def test_notes_say_what_is_installed_and_what_comes_next(name):
    said = notes(name)
    assert said.startswith("Pegel 0.1.0, release pegel in namespace pegel.\n\nINSTALLED\n")
    assert "pegel inject -f" in said
    assert not [line for line in said.splitlines() if line != line.rstrip() or len(line) > 120]
    assert "\n\n\n" not in said


def test_a_kind_that_the_cluster_lacks_is_named_with_the_reason():
    said = notes("default")
    for kind in ("ServiceMonitor", "PodMonitor", "PrometheusRule"):
        assert f"  {kind:<16} the cluster doesn't know this kind" in said
    assert "pegel rules -o DIR" in said
    assert "Selector:" not in said


def test_what_a_value_switched_off_is_named_with_the_value():
    said = notes("no-operator")
    for path in ("serviceMonitor", "podMonitor", "rules", "dashboards"):
        assert f"switched off by monitoring.{path}.enabled" in said
    assert "switched off by gpu.enabled" in notes("no-gpu")


def test_what_is_all_there_leaves_nothing_to_be_named_as_missing():
    said = notes("argo-cd")
    assert "NOT INSTALLED" not in said
    assert "set monitoring.labels if one is asked for" in said
    assert "release=kube-prometheus-stack" in notes("everything")


def test_attribution_warns_of_the_namespace_it_needs():
    assert "pod-security.kubernetes.io/enforce=privileged" in notes("pod-attribution")
    assert "WARNING" not in notes("default")


def test_without_a_gpu_the_notes_do_not_send_anyone_to_the_exporter():
    said = notes("no-gpu")
    assert "port-forward" not in said
    assert "helm -n pegel test" not in said


def test_simulated_gpus_are_called_so_and_nothing_is_said_of_runtimes():
    said = notes("simulate")
    assert "simulated GPUs: dgx-a100" in said
    assert "RuntimeClass" not in said
