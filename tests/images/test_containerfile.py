"""What can be said of the Containerfile and its locks without building."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Containerfile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {"exporter": ["exporter"], "sidecar": ["sidecar"], "cluster": ["cluster", "rules", "dashboards"]}


def locked(name: str) -> Iterator[tuple[str, str]]:
    """Package and version of each line of a lock."""
    text = (ROOT / "locks" / f"{name}.txt").read_text(encoding="utf-8")
    return ((match[1], match[2]) for match in re.finditer(r"^([\w.-]+)==([\w.]+)", text, re.MULTILINE))


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    said = subprocess.run([hadolint, "--no-color", ROOT / "Containerfile"], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout) == (0, "")


def test_the_base_is_pinned_by_its_day_and_its_digest() -> None:
    pinned = r"^ARG BASE=debian:bookworm-\d{8}-slim@sha256:[0-9a-f]{64}$"
    assert re.search(pinned, TEXT, re.MULTILINE)
    stages = set(re.findall(r" AS (\S+)$", TEXT, re.MULTILINE))
    assert set(re.findall(r"^FROM (\S+)", TEXT, re.MULTILINE)) <= stages | {"${BASE}"}


def test_every_package_from_outside_is_held_to_a_hash() -> None:
    installs = re.findall(r"pip --python \S+ install ((?:[^\n]*\\\n)*[^\n]*)", TEXT)
    outside = [install for install in installs if "--no-index" not in install]
    assert len(outside) == 4
    assert all("--require-hashes" in install and "--only-binary :all:" in install for install in outside)


def test_the_version_that_images_are_labelled_with_is_the_projects() -> None:
    assert f"\nARG VERSION={PROJECT['version']}\n" in TEXT


@pytest.mark.parametrize("name", [*EXTRAS, "build"])
def test_an_image_has_the_versions_that_are_tested(name: str) -> None:
    tested = set(locked("test")) | set(locked("demo"))
    known = {package for package, _ in tested}
    assert {pin for pin in locked(name) if pin[0] in known} <= tested


@pytest.mark.parametrize("name", EXTRAS)
def test_an_images_lock_has_all_that_its_extras_ask_for(name: str) -> None:
    wanted = [
        *PROJECT["dependencies"],
        *(each for extra in EXTRAS[name] for each in PROJECT["optional-dependencies"][extra]),
    ]
    names = {normal(re.split(r"[<>=!~\[; ]", each)[0]) for each in wanted}
    assert names <= {normal(package) for package, _ in locked(name)}
