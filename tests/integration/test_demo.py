"""`pegel demo`, run as a user runs it, and its status page in a real browser."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from pegel_agent.demo.housing import housing
from playwright.sync_api import Browser, Page, sync_playwright

pytestmark = pytest.mark.integration

CHROMIUM_ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


@dataclass
class Demo:
    process: subprocess.Popen[str]
    output: Path
    folder: Path

    def said(self) -> str:
        return self.output.read_text()

    def address(self, what: str) -> str:
        """An address that the demo said to open."""
        give_up = time.monotonic() + 40
        while time.monotonic() < give_up:
            found = re.search(rf"^  {re.escape(what)} +(http://\S+)$", self.said(), re.MULTILINE)
            if found:
                return found[1]
            assert self.process.poll() is None, self.said()
            time.sleep(0.1)
        raise AssertionError(f"no address of {what} in:\n{self.said()}")

    def children(self) -> list[int]:
        return [int(pid) for pid in subprocess.run(
            ["pgrep", "-f", str(self.folder)], check=False, text=True, capture_output=True
        ).stdout.split()]  # fmt: skip


@contextmanager
def demo(folder: Path, *arguments: str) -> Iterator[Demo]:
    """Run the demo with a folder of its own for temporary files, so that what it leaves behind shows."""
    output, temporary = folder / "output.txt", folder / "tmp"
    temporary.mkdir()
    with output.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "pegel_agent.cli.main", "demo", "--no-browser", *arguments],
            stdout=file, stderr=subprocess.STDOUT, text=True, env={**os.environ, "TMPDIR": str(temporary)},
        )  # fmt: skip
    try:
        yield Demo(process, output, temporary)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(20)


def nothing_is_left(found: Demo) -> None:
    assert list(found.folder.iterdir()) == []
    assert found.children() == []


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        message = "chromium is missing: apt-get install chromium"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=[*CHROMIUM_ARGUMENTS])
        yield started
        started.close()


def looks_right(page: Page) -> None:
    """The drifted feature first, and what a reader needs to be able to read."""
    features = [heading.inner_text() for heading in page.locator("h3").all()]
    assert features[0].startswith("sales_change"), features
    text = page.inner_text("body")
    assert "Drift since" in text
    assert re.search(r"\d+\.\d\s%\sto\s\d+\.\d\s%", text), "the accuracy's interval"
    for drawn, count, height in (
        ("svg.histogram", 4, 25),
        ("svg.chart .alarm.start", 1, 5),
        ("svg.chart .band", 1, 10),
    ):
        assert page.locator(drawn).count() == count, drawn
        for one in page.locator(drawn).all():
            box = one.bounding_box()
            assert box is not None
            assert (box["width"] > 50, box["height"] > height) == (True, True), (drawn, box)
    assert page.locator("svg.chart .alarm.start").text_content() == "alarm at 4.5"


def test_the_demo_shows_the_whole_product(tmp_path: Path, browser: Browser) -> None:
    with demo(tmp_path, "--for", "50s") as running:
        admin, alerts = running.address("Status page"), running.address("Alerts")
        gpus = running.address("GPUs (simulated)")
        assert "simulated" in httpx.get(gpus).text.lower()
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        problems: list[str] = []
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        rows = len(housing().replayed)
        while httpx.get(f"{admin}api/status").json()["rows"] < 0.85 * rows:
            time.sleep(0.5)
            assert running.process.poll() is None, running.said()
        page.goto(admin)
        picture = tmp_path / "status-page.png"
        page.screenshot(path=picture, full_page=True)
        assert page.locator("text=sales_change").first.is_visible()
        looks_right(page)
        assert problems == []
        assert httpx.get(alerts).status_code == 200
        assert running.process.wait(60) == 0, running.said()
        said = running.said()
        nothing_is_left(running)
    if pictures := os.environ.get("PEGEL_PICTURES"):
        shutil.copy(picture, Path(pictures) / "status-page.png")
    the_summary_tells_it(said)


def the_summary_tells_it(said: str) -> None:
    summary = said[said.index("What Pegel saw") :]
    detected = re.search(r"drift detected after (\d+) requests in (\w+)", summary)
    assert detected is not None, said
    markets = housing().replayed
    at = markets[min(int(detected[1]), len(markets) - 1)].date
    # Sales in Texas fell from the summer of 2007 on. Two and a half years passed quietly before.
    assert "2007-06" <= at <= "2007-12"
    assert detected[2] == "sales_change"
    assert re.search(r"accuracy \d+\.\d%, between \d+\.\d% and \d+\.\d% \(95 % interval, \d+ labels\)", summary)
    assert f"{len(markets)} requests counted, 0 errors" in summary
    assert "0 shed, 0 not decodable" in summary
    assert re.search(r"GPU waste \d+\.\d\d € an hour: 2 of 8 simulated GPUs did nothing", summary)
    fired = re.search(r"alerts that fired: (.*)", summary)
    assert fired is not None, said
    assert {"DataDriftDetected", "ModelAccuracyDrift"} <= set(re.findall(r"[A-Z]\w+", fired[1]))


def test_ctrl_c_ends_the_demo_with_its_summary_and_leaves_nothing(tmp_path: Path) -> None:
    with demo(tmp_path, "--for", "60s") as running:
        admin = running.address("Status page")
        while httpx.get(f"{admin}api/status").json()["rows"] < 20:
            time.sleep(0.2)
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(60) == 0, running.said()
        assert "no drift in" in running.said()
        assert "too few labels" in running.said()
        nothing_is_left(running)
    with pytest.raises(httpx.HTTPError):
        httpx.get(admin)


def test_the_demo_works_where_its_ports_are_taken_and_there_is_no_prometheus() -> None:
    with tempfile.TemporaryDirectory() as name, socket.socket() as taken, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # whoever else has it will do
            taken.bind(("127.0.0.1", 9466))
            taken.listen()
        patch.setenv("PATH", str(folder))
        with demo(folder, "--for", "60s") as running:
            admin = running.address("Status page")
            assert not admin.endswith(":9466/")
            assert "no prometheus binary was found" in running.said()
            assert httpx.get(f"{admin}healthz").status_code == 200


def test_too_short_a_time_is_refused_in_one_line(tmp_path: Path) -> None:
    with demo(tmp_path, "--for", "5s") as running:
        assert running.process.wait(20) == 2
        assert running.said() == "pegel: the demo needs at least 30 s to show anything\n"
