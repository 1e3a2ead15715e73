"""`pegel inject`: the sidecar into manifests, and out again."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from pegel_exporters.errors import UserError

if TYPE_CHECKING:
    from pegel_agent.cluster.sidecar import Settings

_QUANTITY = r"\d+(\.\d+)?(m|[kMGT]i?)?"
_LEAST_MEBIBYTES = 128


@click.command()
@click.option(
    "-f",
    "--filename",
    required=True,
    multiple=True,
    metavar="FILE",
    help="Manifest; - is standard input. May be repeated.",
)
@click.option("--undo", is_flag=True, help="Take the sidecar out again.")
@click.option("--diff", is_flag=True, help="Print what would change instead of the result.")
@click.option("--check", is_flag=True, help="Print no manifest; exit 1 where clients would go past the sidecar.")
@click.option("--fix-services", is_flag=True, help="Let Services with a numeric targetPort use the port's name.")
@click.option("--image", help="The sidecar's image; by default pegel/sidecar at this version.")
@click.option(
    "--mode", type=click.Choice(["proxy", "sink"]), default="proxy", help="Before the model, or as KServe's logger."
)
@click.option("--port", default="", metavar="PORTS", help="The model's ports, by name or number; the first is watched.")
@click.option("--profile", default="", metavar="CONFIGMAP", help="ConfigMap that holds profile.json.")
@click.option("--model-name", default="", help="Label model_name; by default the profile's, else the workload's name.")
@click.option("--model-version", default="", help="Label model_version.")
@click.option("--window", default="", help="The sidecar's --window.")
@click.option("--false-alarms", default="", metavar="BUDGET", help="The sidecar's --false-alarms.")
@click.option("--feedback-secret", default="", metavar="SECRET", help="Secret whose key `token` guards feedback.")
@click.option(
    "--kubernetes", default="1.32", metavar="VERSION", help="The oldest version that the pods run on, from 1.27."
)
@click.option(
    "--listen-port", type=click.IntRange(1, 65535), default=15080, help="Where the sidecar listens for clients."
)
@click.option(
    "--admin-port", type=click.IntRange(1, 65535), default=9466, help="Its metrics, health, feedback and page."
)
@click.option("--cpu", default="50m", metavar="QUANTITY", help="Its cpu request.")
@click.option(
    "--cpu-limit", default="", metavar="QUANTITY", help="Its cpu limit; none by default, as traffic would wait."
)
@click.option(
    "--guaranteed-cpu", default="500m", metavar="QUANTITY", help="Its cpu in a Guaranteed pod, request and limit."
)
@click.option("--memory", default="192Mi", metavar="QUANTITY", help="Its memory, request and limit.")
def command(
    filename: tuple[str, ...], undo: bool, diff: bool, check: bool, fix_services: bool, **options: object
) -> int:
    """Put Pegel's sidecar into manifests. Needs no cluster; the result goes to standard output.

    Pods, Deployments, StatefulSets, DaemonSets, ReplicaSets, Jobs, CronJobs and Argo Rollouts get it, also within a
    List: those that say `pegel.dev/inject: "true"`, or, where none does, all that don't say "false". A pod's own
    annotations pegel.dev/port, /profile, /mode, /model-name and /model-version go before the options. Injecting twice
    is injecting once; to inject with other options or another version, --undo first.

    By which name the model is served is read from its container where MODEL_NAME, --model_name or the like say it, or
    from the annotation pegel.dev/served-model. The summary tells.

    The sidecar takes the name of the model's port, and Services that use the name follow. A Service with a number goes
    past it, and is warned about.

    \b
    Example:
      kubectl create configmap churn-profile --from-file=profile.json
      pegel inject -f model.yaml --profile churn-profile --diff
      pegel inject -f model.yaml --profile churn-profile | kubectl apply -f -
      pegel inject -f injected.yaml --undo
    """
    from pegel_agent.cluster.manifests import eject_all, inject_all

    if undo and fix_services:
        raise UserError("--fix-services: --undo undoes that too, and needs only itself")
    settings = _settings(options)
    sources = [_read(name) for name in filename]
    outcome = eject_all(sources) if undo else inject_all(sources, settings, fix_services=fix_services)
    for line in outcome.done:
        click.echo(f"pegel: {line}", err=True)
    for warning in outcome.warnings:
        click.secho(f"pegel: warning: {warning}", err=True, fg="yellow")
    if check:
        return 1 if outcome.warnings else 0
    if diff:
        click.echo(_diff(sources, outcome.text), nl=False)
    else:
        click.echo(outcome.text, nl=False)
    return 0


def _read(name: str) -> tuple[str, str]:
    """A file's name for messages, and its text. Raises UserError."""
    try:
        if name == "-":
            if sys.stdin is None:
                raise UserError("cannot read standard input: it is closed")
            return "standard input", sys.stdin.buffer.read().decode("utf-8-sig")
        return name, Path(name).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read {name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not text in UTF-8") from error


def _diff(sources: list[tuple[str, str]], after: str) -> str:
    import difflib

    before = "".join(text for _, text in sources)
    name = " ".join(name for name, _ in sources)
    lines = difflib.unified_diff(before.splitlines(True), after.splitlines(True), name, f"{name} (injected)")
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def _settings(options: dict[str, object]) -> "Settings":
    """The settings of the options, checked as far as that needs no cluster. Raises UserError."""
    import re
    from importlib.metadata import version

    import msgspec

    from pegel_agent.cluster.sidecar import OBJECT_NAME, Settings
    from pegel_agent.statistics.budget import budget_windows, parse_window

    own = version("pegel")
    named = {name: value for name, value in options.items() if value is not None}
    oldest = re.fullmatch(r"v?1\.(\d+)(\..*)?", str(named["kubernetes"]))
    if oldest is None or int(oldest[1]) < 27:
        raise UserError(f"--kubernetes {named['kubernetes']}: write a version from 1.27 on, such as 1.31")
    named["kubernetes"] = (1, int(oldest[1]))
    for option in ("cpu", "cpu_limit", "guaranteed_cpu", "memory"):
        if named[option] and not re.fullmatch(_QUANTITY, str(named[option])):
            raise UserError(f"--{option.replace('_', '-')} {named[option]}: write a quantity such as 50m or 192Mi")
    memory = re.fullmatch(r"(\d+)Mi|(\d+)Gi", str(named["memory"]))
    if memory is None or int(memory[1] or 1024 * int(memory[2])) < _LEAST_MEBIBYTES:
        raise UserError(f"--memory {named['memory']}: write at least {_LEAST_MEBIBYTES}Mi, which the sidecar needs")
    for option in ("profile", "feedback_secret"):
        if named[option] and not re.fullmatch(OBJECT_NAME, str(named[option])):
            raise UserError(f"--{option.replace('_', '-')} {named[option]}: that is no name of an object in Kubernetes")
    if str(named["profile"]).endswith(".json"):
        raise UserError(
            f"--profile {named['profile']}: give the name of a ConfigMap, which "
            "`kubectl create configmap NAME --from-file=profile.json` makes"
        )
    if re.search(r"\s", str(named.get("image", ""))):
        raise UserError(f"--image {named['image']!r}: an image has no space in its name")
    try:
        window = parse_window(str(named["window"] or "5m"))
        budget_windows(str(named["false_alarms"]) or None, window)
    except ValueError as error:
        raise UserError(f"--window, --false-alarms: {error}") from error
    if named["listen_port"] == named["admin_port"]:
        raise UserError("--listen-port and --admin-port are the same; clients and operators need one each")
    return msgspec.convert({"image": f"pegel/sidecar:{own}", "version": own, **named}, Settings)
