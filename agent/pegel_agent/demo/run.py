"""The whole product on one machine: a model, its traffic, Pegel beside it, and what Pegel saw."""

import contextlib
import csv
import logging
import os
import signal
import sys
import tempfile
import time
import webbrowser
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click
import httpx
import msgspec
from pegel_exporters.errors import UserError
from pegel_exporters.gpu import simulated
from pegel_exporters.gpu.readings import Node
from pegel_exporters.gpu.waste import Waste, waste

from pegel_agent.demo import prometheus
from pegel_agent.demo.housing import FEATURES, MODEL_NAME, Housing, Market, housing
from pegel_agent.demo.model_server import predict, train
from pegel_agent.demo.replay import Urls, replay
from pegel_agent.demo.stage import Stage, free_port, pegel, port_or_free, stage
from pegel_agent.reference.build import Roles, build_profile
from pegel_agent.reference.profile import save
from pegel_agent.sidecar.monitor.state import ModelState

SHORTEST_SECONDS = 30.0
WINDOW_ROWS = 40
ACCURACY_THRESHOLD = 0.6
"""The model is right about seven times of ten: three points below the default threshold before anything happens."""
_GPUS = "dgx-a100"
_LAST_WORDS_SECONDS = 3.0


@dataclass(slots=True)
class Seen:
    """What the demo has seen of Pegel so far."""

    began: float = field(default_factory=time.monotonic)
    date: str = ""
    requests: int = 0
    drift_after: int | None = None
    drift_feature: str = ""
    first_accuracy: float | None = None
    state: ModelState | None = None
    alerts: dict[str, float] = field(default_factory=dict)
    """Seconds after the start at which each alert was first seen to fire."""
    gpus: list[Node] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began


@dataclass(frozen=True, slots=True)
class _Ports:
    model: int
    traffic: int
    admin: int
    gpu: int
    prometheus: int


def run(*, seconds: float, stay: bool, browser: bool) -> None:
    """Play the demo in this many seconds. `stay`: then keep everything open until Ctrl-C. Raises UserError."""
    if seconds < SHORTEST_SECONDS:
        raise UserError(f"the demo needs at least {SHORTEST_SECONDS:g} s to show anything")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # else a line for each request
    seen = Seen()
    ports = _Ports(free_port(), port_or_free(15080), port_or_free(9466), port_or_free(9465), port_or_free(9090))
    data = housing()
    with tempfile.TemporaryDirectory(prefix="pegel-demo-") as folder, stage(Path(folder)) as on_stage:
        try:
            program = prometheus.binary()
            _set_up(on_stage, data, ports, program)
            _introduce(ports, program, data)
            if browser and (sys.platform == "darwin" or os.environ.keys() & {"DISPLAY", "WAYLAND_DISPLAY"}):
                webbrowser.open(f"http://127.0.0.1:{ports.admin}/")
            left = max(SHORTEST_SECONDS / 2, seconds - seen.seconds - _LAST_WORDS_SECONDS)
            _play(data, ports, seen, seconds=left, alerts=program is not None)
            if stay:
                click.echo("\nThe replay is over; all pages stay open until Ctrl-C.")
                _summarise(seen, program is not None)
                signal.pause()
        except KeyboardInterrupt:
            click.echo("")
            if stay and seen.requests == len(data.replayed):
                return
            _look_again(ports, seen)
        except httpx.HTTPError as error:
            raise UserError(f"the demo broke off: {error!r}") from error
        _summarise(seen, program is not None)


def _set_up(on_stage: Stage, data: Housing, ports: _Ports, program: str | None) -> None:
    click.echo("Setting up: training the model, building its reference profile, starting everything …")
    profile = _profile(data, on_stage.folder)
    on_stage.start("model", [sys.executable, "-m", "pegel_agent.demo.model_server", str(ports.model)])
    on_stage.start(
        "sidecar",
        pegel(
            "sidecar", "--listen", f"127.0.0.1:{ports.traffic}", "--upstream", f"127.0.0.1:{ports.model}",
            "--admin", f"127.0.0.1:{ports.admin}", "--profile", str(profile), "--window", str(WINDOW_ROWS),
            "--label-horizon", "0",  # a minute of the demo is a matter of years: no label has a day to wait
            "--lame-duck", "0",
        ),
    )  # fmt: skip
    on_stage.start(
        "GPU exporter",
        pegel("gpu-exporter", "--simulate", _GPUS, "--interval", "1s", "--listen", f"127.0.0.1:{ports.gpu}"),
    )
    if program is not None:
        targets = (prometheus.Target("sidecar", ports.admin), prometheus.Target("gpu", ports.gpu))
        on_stage.start(
            "Prometheus",
            prometheus.command(
                program, on_stage.folder, port=ports.prometheus, targets=targets, accuracy_threshold=ACCURACY_THRESHOLD
            ),
        )
        on_stage.wait_for("Prometheus", f"http://127.0.0.1:{ports.prometheus}/-/ready")
    on_stage.wait_for("model", f"http://127.0.0.1:{ports.model}/v1/models/{MODEL_NAME}")
    on_stage.wait_for("GPU exporter", f"http://127.0.0.1:{ports.gpu}/readyz")
    on_stage.wait_for("sidecar", f"http://127.0.0.1:{ports.admin}/api/status")


def _profile(data: Housing, folder: Path) -> Path:
    """Do what a user does: write the reference's rows, with the model's predictions, and build a profile of them."""
    rows, profile = folder / "reference.csv", folder / "profile.json"
    features = [market.features for market in data.reference]
    with rows.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*FEATURES, "prediction"])
        predictions = predict(train(data.training), features)
        writer.writerows([*row, prediction] for row, prediction in zip(features, predictions, strict=True))
    save(
        build_profile(
            rows, roles=Roles(predictions=frozenset({"prediction"})), model_name=MODEL_NAME, model_version="1",
            created=time.time(),
        ),
        profile,
    )  # fmt: skip
    return profile


def _introduce(ports: _Ports, program: str | None, data: Housing) -> None:
    first, last = data.replayed[0].date, data.replayed[-1].date
    click.echo(
        f"\nA model tells whether more homes will be sold in a year, for {len({m.city for m in data.replayed})} cities"
        f" in Texas.\nIt was trained on 2001 to 2003, its reference is 2001 to 2004; now it is asked about every month"
        f" from {first} to {last}.\n"
    )
    for what, address in (
        ("Status page", f"http://127.0.0.1:{ports.admin}/"),
        ("Metrics", f"http://127.0.0.1:{ports.admin}/metrics"),
        ("GPUs (simulated)", f"http://127.0.0.1:{ports.gpu}/"),
        (
            "Alerts",
            prometheus.alerts_page(f"http://127.0.0.1:{ports.prometheus}")
            if program
            else "no prometheus binary was found: left out",
        ),
    ):
        click.echo(f"  {what:<18}{address}")
    click.echo("")


def _play(data: Housing, ports: _Ports, seen: Seen, *, seconds: float, alerts: bool) -> None:
    urls = Urls(f"http://127.0.0.1:{ports.traffic}", f"http://127.0.0.1:{ports.admin}")
    source = simulated.source(_GPUS)
    next_second = 0.0
    with httpx.Client(timeout=5.0) as client:
        for market in _shown(replay(data.replayed, urls, seconds=seconds), len(data.replayed), seen):
            seen.requests += 1
            seen.date = market.date
            answer = client.get(f"{urls.admin}/api/status")
            if answer.status_code == 200:
                _note(msgspec.json.decode(answer.content, type=ModelState), seen)
            if seen.seconds >= next_second:
                next_second = seen.seconds + 1
                seen.gpus.append(source(time.time()))
                if alerts:
                    _note_alerts(ports.prometheus, seen)
    time.sleep(1.5)  # the last labels, the last scrape
    _look_again(ports, seen)
    if alerts:
        _note_alerts(ports.prometheus, seen)


def _look_again(ports: _Ports, seen: Seen) -> None:
    """Note how things stand when the last exchange has been analysed."""
    time.sleep(0.5)
    with contextlib.suppress(httpx.HTTPError):
        answer = httpx.get(f"http://127.0.0.1:{ports.admin}/api/status", timeout=5.0).raise_for_status()
        _note(msgspec.json.decode(answer.content, type=ModelState), seen)


def _shown(markets: Iterator[Market], length: int, seen: Seen) -> Iterator[Market]:
    """The markets, with a progress bar where there is a terminal."""
    with click.progressbar(
        markets, length=length, label="Replaying", item_show_func=lambda market: market.date if market else "",
        file=sys.stderr,
    ) as bar:  # fmt: skip
        yield from bar


def _note(state: ModelState, seen: Seen) -> None:
    seen.state = state
    if seen.first_accuracy is None:
        seen.first_accuracy = state.accuracy.accuracy
    if state.drifted and seen.drift_after is None:
        seen.drift_after = seen.requests
        strongest = state.features[0]
        seen.drift_feature = strongest.name
        _tell(seen, f"drift detected after {seen.requests} requests in {strongest.name} ({strongest.direction})")


def _note_alerts(port: int, seen: Seen) -> None:
    with contextlib.suppress(httpx.HTTPError):
        for name, summary in prometheus.firing(f"http://127.0.0.1:{port}").items():
            if name not in seen.alerts:
                seen.alerts[name] = seen.seconds
                _tell(seen, f"alert {name} fires: {summary}")


def _tell(seen: Seen, what: str) -> None:
    start = "\r\033[K" if sys.stderr.isatty() else ""
    click.echo(f"{start}{seen.date}  {what}", err=bool(start))


def _summarise(seen: Seen, alerts: bool) -> None:
    state = seen.state
    if state is None:
        click.echo("Ended before Pegel had seen anything.")
        return
    click.echo(f"\nWhat Pegel saw in {seen.seconds:.0f} s, until {seen.date}:")
    if seen.drift_after is None:
        click.echo(f"  no drift in {seen.requests} requests")
    else:
        click.echo(f"  drift detected after {seen.drift_after} requests in {seen.drift_feature}")
    accuracy = state.accuracy
    if accuracy.accuracy is None or accuracy.lower is None or accuracy.upper is None:
        click.echo(f"  accuracy: too few labels to tell ({accuracy.labels})")
    else:
        click.echo(
            f"  accuracy {accuracy.accuracy:.1%}, between {accuracy.lower:.1%} and {accuracy.upper:.1%}"
            f" (95 % interval, {accuracy.labels} labels); it was {seen.first_accuracy or 0:.0%} at first"
        )
    click.echo(
        f"  {state.tap.requests} requests counted, {state.tap.errors} errors;"
        f" {state.tap.analysed} analysed, {state.tap.shed} shed, {state.tap.undecodable} not decodable"
    )
    if len(seen.gpus) > 1:
        click.echo(f"  {_waste_in_words(waste(seen.gpus), len(seen.gpus[-1].gpus))}")
    if alerts:
        fired = ", ".join(f"{name} (after {after:.0f} s)" for name, after in seen.alerts.items())
        click.echo(f"  alerts that fired: {fired or 'none'}")


def _waste_in_words(found: Waste, gpus: int) -> str:
    an_hour = found.idle_cost / found.gpu_seconds * gpus * 3600 if found.gpu_seconds else 0.0
    return (
        f"GPU waste {an_hour:.2f} € an hour: {len(found.idle_gpus)} of {gpus} simulated GPUs did nothing,"
        f" {found.idle_ratio:.0%} of the GPU time was idle"
    )
