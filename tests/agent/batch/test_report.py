"""Evidently's report, made in an environment of its own and read in a browser."""

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import sync_playwright

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]
PEGEL = Path(sys.executable).parent / "pegel"


@cache
def environment() -> Path:
    """Evidently's environment. Where it is missing CI builds it, and anyone else's test is skipped."""
    install = ROOT / "benchmarks" / "install-evidently"
    settings = os.environ | {"PYTHON": sys.executable}
    where = subprocess.run([install, "--where"], env=settings, capture_output=True, text=True, check=False)
    if where.returncode != 0:
        if os.environ.get("CI") != "true":
            pytest.skip(where.stderr.strip())
        where = subprocess.run([install], env=settings, stdout=subprocess.PIPE, text=True, check=True)
    return Path(where.stdout.strip())


def report(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(str(ROOT / room) for room in ("agent", "exporters"))
    return subprocess.run(
        [environment() / "bin" / "python", "-m", "pegel_agent.cli.main", "report", *arguments],
        env=os.environ | {"PYTHONPATH": paths}, cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip


def csv(path: Path, *, seed: int, shift: float = 0.0, more: str = "") -> None:
    rng = np.random.default_rng(seed)
    columns = (rng.normal(40 + shift, 10, 2_000), rng.choice(["Ulm", "Köln"], 2_000), range(2_000))
    lines = [f"{age:.2f},{city},order-{number},,{number}" for age, city, number in zip(*columns, strict=True)]
    path.write_text("\n".join((f"age,city,order,nothing,{more}", *lines)) + "\n", encoding="utf-8")


def in_a_browser(page_file: Path) -> tuple[str, list[str]]:
    """The text that a reader sees, and what the page asked of others."""
    chromium = shutil.which("chromium")
    if chromium is None:
        message = "needs Chromium: install the package `chromium`"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--headless", "--no-sandbox"])
        page = browser.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(page_file.as_uri())
        page.get_by_text("Dataset Drift").first.wait_for(timeout=60_000)
        page.get_by_text("age", exact=True).first.wait_for(timeout=60_000)
        text = page.inner_text("body")
        browser.close()
    return text, [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]


def test_the_report_is_evidently_s_on_the_columns_that_both_files_have(tmp_path: Path) -> None:
    csv(tmp_path / "train.csv", seed=1, more="a")
    csv(tmp_path / "march.csv", seed=2, shift=8.0, more="b")
    done = report(tmp_path, "--reference", "train.csv", "--current", "march.csv", "-o", "report.html")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "report.html: Evidently's report on 2 columns, 2,000 rows against 2,000\n"
    assert done.stderr.splitlines() == [
        "note: left out: a is in train.csv only",
        "note: left out: b is in march.csv only",
        "note: left out: order has 2,000 different texts",
        "note: left out: nothing has no value",
    ]
    text, asked = in_a_browser(tmp_path / "report.html")
    assert "Dataset Drift is detected" in text
    assert "2 Columns 1 Drifted Columns" in " ".join(text.split())
    assert asked == [], "the report needs nobody else"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train.csv", "nowhere.csv"), "nowhere.csv does not exist"),
        (("train.csv", "other.csv"), "train.csv and other.csv have no column in common; the first has age"),
        (("train.csv", "empty.csv"), "empty.csv has no rows"),
        (("train.csv", "train.csv", "--ignore", "when"), "neither file has a column 'when' to ignore"),
        (
            ("train.csv", "train.csv", "--ignore", "age", "--ignore", "city", "--ignore", "a"),
            "no column is left to report on: order has 2,000 different texts; nothing has no value",
        ),
    ],
)
def test_files_that_can_not_be_used_are_refused_in_one_line(
    tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    csv(tmp_path / "train.csv", seed=1, more="a")
    (tmp_path / "other.csv").write_text("x\n1\n", encoding="utf-8")
    (tmp_path / "empty.csv").write_text("age,city\n", encoding="utf-8")
    reference, current, *more = arguments
    done = report(tmp_path, "--reference", reference, "--current", current, "-o", "report.html", *more)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert words in done.stderr
    assert not (tmp_path / "report.html").exists()


def test_without_evidently_one_line_says_how_to_install_it(tmp_path: Path) -> None:
    csv(tmp_path / "train.csv", seed=1, more="a")
    program = "import sys; sys.modules['evidently'] = None; from pegel_agent.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "report", "--reference", "train.csv", "--current", "train.csv", "-o", "r.html"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "pegel: the report needs evidently, in an environment of its own: pip install 'pegel[report]'\n"
    )
