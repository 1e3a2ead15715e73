"""What docs/kubernetes.md shows to be copied is taken by what it is for."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.apiserver.cluster import Cluster

pytestmark = pytest.mark.integration

PAGE = (Path(__file__).parents[2] / "docs" / "kubernetes.md").read_text(encoding="utf-8")
BLOCKS = [
    re.sub("^    ", "", block, flags=re.MULTILINE).strip() + "\n"
    for block in re.findall(r"^(?: {4}.*\n|\n(?= {4}))+", PAGE, re.MULTILINE)
]


def test_manifests_are_accepted_in_a_restricted_namespace(cluster: Cluster) -> None:
    manifests = [block for block in BLOCKS if block.startswith("apiVersion:")]
    assert len(manifests) == 2
    for manifest in manifests:
        with cluster.namespace() as namespace:
            assert "violate" not in cluster.apply(manifest, namespace=namespace)


def test_the_scrape_configuration_is_one(tmp_path: Path) -> None:
    (jobs,) = [block for block in BLOCKS if block.startswith("- job_name:")]
    found = yaml.safe_load(jobs)
    assert [set(job.pop("kubernetes_sd_configs")[0]) for job in found] == [{"role"}, {"role", "namespaces"}]
    config = tmp_path / "prometheus.yml"  # Debian's Prometheus is built without Kubernetes' service discovery
    config.write_text(yaml.safe_dump({"scrape_configs": found}))
    said = subprocess.run(["promtool", "check", "config", config], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
