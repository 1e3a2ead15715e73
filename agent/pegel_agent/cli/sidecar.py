"""`pegel sidecar`."""

import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click
from pegel_exporters.errors import UserError

if TYPE_CHECKING:
    from pegel_exporters.serving import Address

    from pegel_agent.sidecar.tap.forwarder import Forward

T = TypeVar("T")
_LOOPBACK = {"", "127.0.0.1", "::1", "localhost"}
_EVERYWHERE = {"", "0.0.0.0", "::"}  # noqa: S104
_UPSTREAM = "127.0.0.1:8501"


@click.command()
@click.option(
    "--mode",
    type=click.Choice(["proxy", "sink"]),
    default="proxy",
    help="Forward the model's traffic, or receive the events of KServe's payload logger.",
)
@click.option(
    "--listen", default=":15080", metavar="ADDRESS", help="Where clients send their requests, or the logger its events."
)
@click.option("--upstream", metavar="ADDRESS", help=f"Where the model listens; by default {_UPSTREAM}.")
@click.option(
    "--forward",
    multiple=True,
    metavar="LISTEN=UPSTREAM",
    help="One more port of the model; may be repeated. HTTP/1.1 is watched there too, gRPC is only forwarded.",
)
@click.option("--admin", default=":9466", metavar="ADDRESS", help="Metrics, health, feedback and the status page.")
@click.option(
    "--served-model", metavar="NAME[,NAME]",
    help="What the model is called in paths (/v1/models/NAME), or its InferenceService as [NAMESPACE/]NAME[/COMPONENT];"
    " requests for others are forwarded and counted apart. By default the first whose columns fit.",
)  # fmt: skip
@click.option(
    "--served-version", metavar="V[,V]",
    help="Requests whose path names another version (/versions/V), or label of one, are another model's.",
)  # fmt: skip
@click.option("--model-name", help="Label model_name; by default the profile's, else 'model'.")
@click.option("--model-version", help="Label model_version; by default the profile's, else '1'.")
@click.option("--profile", type=click.Path(), help="Reference profile; without one, the first traffic is learned.")
@click.option("--category-key", type=click.Path(), metavar="FILE", help="The key of the profile's hashed categories.")
@click.option("--window", default="5m", help="A window of time (5m) or of rows (500).")
@click.option(
    "--false-alarms", metavar="BUDGET", help="The budget of false alarms: 1/30d (the default), or 1/8640w in windows."
)
@click.option(
    "--harmless-drift", default=0.0, type=float, metavar="CHI2",
    help="Drift up to this χ² divergence is not reported; 0.01 is a shift of the mean by 0.1 σ.",
)  # fmt: skip
@click.option(
    "--label-horizon", default="1d", metavar="DURATION",
    help="How old a prediction must be to be judged by its label, as some labels come sooner than others; 0: at once. "
    "Predictions wait for their labels in 16 MiB, which keep about 280,000 of them, half as many where the server puts "
    "an id of its own into its answers: at 1 a second for 3 days, at 10 for 8 hours, at 100 for 45 minutes. "
    "ml_predictions_retention_seconds says how long at the rate seen. With less than the horizon, accuracy is unknown "
    "unless all labels come before.",
)  # fmt: skip
@click.option(
    "--feedback-token",
    type=click.Path(),
    metavar="FILE",
    help="Bearer token that guards POST /v1/feedback and opens GET /v1/profile.",
)
@click.option(
    "--lame-duck", default="5s", metavar="DURATION",
    help="How long new connections are still served after SIGTERM, while answers ask clients to go elsewhere.",
)  # fmt: skip
@click.option(
    "--drain", default="20s", metavar="DURATION", help="How long requests that are under way may take after that."
)
@click.option(
    "--leave-file", type=click.Path(), metavar="FILE",
    help="When this file appears, as from a preStop hook, the end begins as with SIGTERM, which it then waits for.",
)  # fmt: skip
def command(
    mode: str,
    listen: str,
    upstream: str | None,
    forward: tuple[str, ...],
    admin: str,
    served_model: str | None,
    served_version: str | None,
    model_name: str | None,
    model_version: str | None,
    profile: str | None,
    category_key: str | None,
    window: str,
    false_alarms: str | None,
    harmless_drift: float,
    label_horizon: str,
    feedback_token: str | None,
    lame_duck: str,
    drain: str,
    leave_file: str | None,
) -> int:
    """Next to a model: watch its traffic for drift and accuracy.

    In the mode proxy requests pass through untouched and a copy is read. In the mode sink KServe's payload logger tells
    of them, and nothing is in their way.

    \b
    Example, for a model that listens on port 8501, and for gRPC on 8500:
      pegel sidecar --upstream 127.0.0.1:8501 --profile profile.json
      pegel sidecar --forward :15081=127.0.0.1:8500 --profile profile.json
    Send requests to port 15080 (gRPC: 15081), open http://localhost:9466/

    \b
    Example, for an InferenceService with `logger: {mode: all, url: http://HOST:15080}`:
      pegel sidecar --mode sink --profile profile.json
    The logger tells nothing of durations, errors and requests under way.
    """
    from pegel_exporters.serving import Address, read_token

    from pegel_agent.reference.keys import key_for
    from pegel_agent.sidecar.settings import AnalyserSettings
    from pegel_agent.sidecar.tap.forwarder import ForwarderSettings, run
    from pegel_agent.sidecar.tap.leaving import Ending
    from pegel_agent.statistics.budget import budget_windows, parse_duration, parse_window

    if mode == "sink" and (upstream is not None or forward):
        given = "--forward" if upstream is None else "--upstream"
        raise UserError(f"{given} goes with --mode proxy; a sink forwards nothing")
    traffic = _option("--listen", Address.parse, listen)
    model = _option("--upstream", Address.parse, upstream or _UPSTREAM) if mode == "proxy" else None
    forwards = tuple(_option("--forward", _forward, text) for text in forward)
    operators = _option("--admin", Address.parse, admin)
    _check_ports(
        [("--listen", traffic), ("--admin", operators), *(("--forward", each.listen) for each in forwards)],
        [*([("--upstream", model)] if model else []), *(("--forward", each.upstream) for each in forwards)],
    )
    if not 0 <= harmless_drift <= 1:  # NaN is neither
        raise UserError(f"--harmless-drift: {harmless_drift:g} is not between 0 and 1")
    served_models = _option("--served-model", _listed, served_model)
    served_versions = _option("--served-version", _listed, served_version)
    size = _option("--window", parse_window, window)

    def seconds(text: str) -> float:
        return 0.0 if text.strip() == "0" else parse_duration(text)

    horizon = _option("--label-horizon", seconds, label_horizon)
    ending = Ending(
        _option("--lame-duck", seconds, lame_duck), _option("--drain", seconds, drain),
        file=Path(leave_file) if leave_file else None,
    )  # fmt: skip
    budget = _option("--false-alarms", lambda text: budget_windows(text, size), false_alarms)
    named, version, key_check = _names(profile)
    if profile is not None:
        key_for(profile, key_check, category_key)
    elif category_key is not None:
        raise UserError("--category-key goes with --profile")
    model_name, model_version = model_name or named or "model", model_version or version or "1"
    return run(
        ForwarderSettings(
            listen=traffic,
            upstream=model,
            forwards=forwards,
            admin=operators,
            model_name=model_name,
            model_version=model_version,
            version=_installed_version(),
            feedback_token=read_token(feedback_token),
            ending=ending,
            served_models=served_models,
            served_versions=served_versions,
            analyser=AnalyserSettings(
                model_name=model_name,
                model_version=model_version,
                profile=str(Path(profile).absolute()) if profile else None,
                category_key=str(Path(category_key).absolute()) if category_key else None,
                window_seconds=size.seconds,
                window_rows=size.rows,
                budget_windows=budget,
                tolerance=harmless_drift,
                label_horizon_seconds=horizon,
            ),
        )
    )


def _forward(text: str) -> "Forward":
    from pegel_exporters.serving import Address

    from pegel_agent.sidecar.tap.forwarder import Forward

    listen, found, upstream = text.partition("=")
    if not found:
        raise UserError(f"{text!r} is not LISTEN=UPSTREAM; write :15081=127.0.0.1:8500")
    return Forward(Address.parse(listen), Address.parse(upstream))


def _listed(text: str | None) -> tuple[str, ...]:
    """Names with commas; none where the option isn't given."""
    if text is None:
        return ()
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise UserError(f"{text!r} has an empty name in it")
    return names


def _check_ports(listens: "list[tuple[str, Address]]", upstreams: "list[tuple[str, Address]]") -> None:
    """Each port is listened on once, and none of them is an upstream: that would be forwarded for ever."""
    for (option, here), (other, there) in combinations(listens, 2):
        if here.port == there.port != 0 and (here.host == there.host or _EVERYWHERE & {here.host, there.host}):
            raise UserError(f"{other} {there} and {option} {here} are the same port")
    for option, model in upstreams:
        for _, here in listens:
            if here.port == model.port and model.host in _LOOPBACK and here.host in _EVERYWHERE | {model.host}:
                raise UserError(f"{option} {model} is where Pegel itself listens; it needs the model's own port")


def _installed_version() -> str:
    """Pegel's version, by the name of the folder that every installer writes. importlib.metadata would bring the
    parsing of mail along, which is 2 of the forwarder's 32 MiB."""
    found = next((each for folder in sys.path for each in Path(folder).glob("pegel-*.dist-info")), None)
    if found is None:
        import importlib.metadata

        return importlib.metadata.version("pegel")
    return found.name.removeprefix("pegel-").removesuffix(".dist-info")


def _names(profile: str | None) -> tuple[str, str, str]:
    """Model name and version of a profile, and what tells its key from others, read without the numeric libraries that
    the analyser reads it with."""
    if profile is None:
        return "", "", ""
    import msgspec

    class Names(msgspec.Struct):
        model_name: str
        model_version: str
        category_key: str = ""

    try:
        names = msgspec.json.decode(Path(profile).read_bytes(), type=Names)
    except OSError as error:
        raise UserError(f"cannot read the profile {profile}: {error.strerror}") from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise UserError(f"{profile} is not a profile: {error}") from error
    return names.model_name, names.model_version, names.category_key


def _option(name: str, read: Callable[..., T], value: object) -> T:
    try:
        return read(value)
    except (ValueError, UserError) as error:
        raise UserError(f"{name}: {error}") from error
