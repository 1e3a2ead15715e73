"""Prometheus with Pegel's rules, where its binary is found: short intervals, the same expressions."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import httpx
import pegel_rules
import yaml

TIME_SCALE = 1 / 60
"""A rule's minute is the demo's second."""


@dataclass(frozen=True, slots=True)
class Target:
    """What Prometheus scrapes: a job's name and its port on loopback."""

    job: str
    port: int


def binary() -> str | None:
    """Where Prometheus is installed, if it is."""
    return shutil.which("prometheus")


def command(
    program: str, folder: Path, *, port: int, targets: tuple[Target, ...], accuracy_threshold: float
) -> list[str]:
    """Write configuration and rules into the folder; the command line that runs with them."""
    settings = pegel_rules.Settings(accuracy_threshold=accuracy_threshold, time_scale=TIME_SCALE)
    rules = folder / "rules"
    rules.mkdir()
    for name, text in pegel_rules.files(pegel_rules.groups(settings)).items():
        (rules / name).write_text(text, encoding="utf-8")
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [f"{rules}/*.yaml"],
        "scrape_configs": [
            {
                "job_name": target.job,
                "honor_labels": True,
                "static_configs": [{"targets": [f"127.0.0.1:{target.port}"], "labels": {"namespace": "demo"}}],
            }
            for target in targets
        ],
    }
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(configuration), encoding="utf-8")
    return [
        program,
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'prometheus-data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]


def alerts_page(url: str) -> str:
    """Where a person sees the alerts; Debian's package leaves out Prometheus' own page, and only the API is left."""
    page = f"{url}/alerts"
    return page if httpx.get(page, timeout=2.0).status_code == 200 else f"{url}/api/v1/alerts"


def firing(url: str) -> dict[str, str]:
    """Names and summaries of the alerts that fire."""
    alerts = httpx.get(f"{url}/api/v1/alerts", timeout=2.0).raise_for_status().json()["data"]["alerts"]
    return {
        alert["labels"]["alertname"]: alert["annotations"].get("summary", "")
        for alert in alerts
        if alert["state"] == "firing"
    }
