"""Pegel's Prometheus rules: `groups(Settings())` as data, `files(...)` as YAML.

One module per group. Rules on replicas first bring them together to one series per model, then compare.
"""

from pegel_rules import accuracy, drift, fleet, gpus, thresholds, watching
from pegel_rules.files import Format, files
from pegel_rules.model import Alert, Group, Record, Settings

__all__ = ["Alert", "Format", "Group", "Record", "Settings", "files", "groups"]


def groups(settings: Settings) -> list[Group]:
    """All rule groups, in the order in which their files are listed."""
    return [module.group(settings) for module in (thresholds, accuracy, drift, fleet, watching, gpus)]
