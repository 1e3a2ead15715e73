"""`pegel COMMAND`: arguments to calls, errors to one line and exit code 2.

Every option can also be set as PEGEL_COMMAND_OPTION in the environment and in a YAML file given by --config. An option
that may be repeated is a list in the file, and in the environment has commas.
"""

import importlib
import importlib.util
import math
import re
import sys
from collections.abc import Mapping
from typing import Any

import click
import yaml
from pegel_exporters import logs
from pegel_exporters.errors import UserError

COMMANDS: Mapping[str, str] = {
    "demo": "The whole product on this machine, no cluster and no GPU.",
    "sidecar": "Next to a model: watch its traffic for drift and accuracy.",
    "gpu-exporter": "Publish this node's GPU metrics.",
    "profile": "Build or show a reference profile.",
    "check": "Test one batch of data against a profile.",
    "backtest": "What Pegel would have said over recorded traffic.",
    "report": "Evidently's HTML report on two files.",
    "feedback": "Send labels from a file to every replica.",
    "what-leaves": "What a sidecar with this profile can publish, and what never leaves.",
    "inject": "Put the sidecar into Kubernetes manifests.",
    "rules": "Write the Prometheus rules.",
    "dashboards": "Write the Grafana dashboards.",
}
"""Command to its line in --help. Each is `command` in the module of its name, imported only when it runs."""

_PLAINER = (
    (r"is not a valid float(?: range)?\.$", "is not a number"),
    (r"is not a valid integer(?: range)?\.$", "is not a whole number"),
    (r"is not a valid boolean\..*$", "is neither true nor false"),
    (r"Directory ('.*') is a file\.$", r"\1 is a file; a folder is needed"),
    (r"File ('.*') is a directory\.$", r"\1 is a folder; a file is needed"),
)
"""Click's sentences, and how people say it."""

_NO_ARGUMENTS: Any = getattr(click.exceptions, "NoArgsIsHelpError", ())  # before click 8.2 the help was no error
_YAML_NULL = "tag:yaml.org,2002:null"


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in COMMANDS if _module(name)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command = importlib.import_module(_module(cmd_name)).command
        assert isinstance(command, click.Command)
        return _configurable(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name]) for name in self.list_commands(ctx)])


def _module(command: str) -> str:
    """The module of a command, empty when this version has none."""
    name = f"pegel_agent.cli.{command.replace('-', '_')}"
    return name if importlib.util.find_spec(name) else ""


def _configurable(command: click.Command) -> click.Command:
    """Give a command, or each of a group's, the options that all commands have."""
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            _configurable(inner)
    elif not any(parameter.name == "config" for parameter in command.params):
        command.params += [
            click.Option(
                ["--config"], type=click.Path(exists=True, dir_okay=False), is_eager=True, expose_value=False,
                callback=_read_config, help="YAML file with any of these options.",
            ),
            click.Option(
                ["--log-format"], type=click.Choice(["text", "json"]), default="text", expose_value=False,
                callback=_set_up_logging, help="How log lines are written.",
            ),
        ]  # fmt: skip
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                parameter.show_default = True
                parameter.show_envvar = True
                if isinstance(parameter.type, click.types.FloatParamType):
                    parameter.callback = parameter.callback or _finite
                if parameter.multiple and parameter.type is click.STRING:
                    parameter.type = _Names()
    return command


class _Names(click.types.StringParamType):
    """Names that an environment variable holds with commas or, as everywhere in click, with spaces between them."""

    def split_envvar_value(self, rv: str) -> list[str]:
        return [name.strip() for name in rv.split(",") if name.strip()] if "," in rv else rv.split()


def _finite(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
    """NaN is outside of every range, and passes click's."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number.")
    return value


def _read_config(ctx: click.Context, _: click.Parameter, path: str | None) -> None:
    if path is None:
        return
    options = {
        name.removeprefix("--"): parameter
        for parameter in ctx.command.params
        if isinstance(parameter, click.Option)
        for name in parameter.opts
        if name.startswith("--") and parameter.name != "config"
    }
    settings: dict[str, Any] = {}
    for key, node in _yaml_pairs(path):
        name = str(key.value).replace("_", "-")
        where = f"{path}, line {key.start_mark.line + 1}"
        if name not in options:
            raise UserError(f"{where}: {ctx.command_path} has no option {key.value!r}")
        if options[name].name in settings:
            raise UserError(f"{where}: {key.value!r} is given twice")
        values = node.value if isinstance(node, yaml.SequenceNode) else [node]
        if any(not isinstance(value, yaml.ScalarNode) or value.tag == _YAML_NULL for value in values):
            raise UserError(f"{where}: {key.value!r} needs a value; leave the line out for the default")
        if isinstance(node, yaml.SequenceNode) and not options[name].multiple:
            raise UserError(f"{where}: {key.value!r} takes one value, not a list")
        texts = [value.value for value in values]
        settings[str(options[name].name)] = texts if options[name].multiple else texts[0]
    ctx.default_map = {**(ctx.default_map or {}), **settings}


def _yaml_pairs(path: str) -> list[tuple[yaml.Node, yaml.Node]]:
    """The options of a file and their values, as they are written: YAML would make 1.1 of 1.10, and 300 of 5:00.

    Raises UserError for a file that can't be read or is no mapping.
    """
    try:
        with open(path, encoding="utf-8") as file:
            document = yaml.compose(file, Loader=yaml.SafeLoader)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a YAML file: {' '.join(str(error).split())}") from error
    if document is None:
        return []
    if not isinstance(document, yaml.MappingNode):
        raise UserError(f"{path}: expected lines such as 'model-name: houses'")
    pairs: list[tuple[yaml.Node, yaml.Node]] = document.value
    return pairs


def _set_up_logging(_: click.Context, __: click.Parameter, log_format: logs.Format) -> None:
    logs.set_up(log_format)


@click.group(cls=_Commands, context_settings={"auto_envvar_prefix": "PEGEL", "help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pegel", prog_name="pegel")
def pegel() -> None:
    """Pegel watches models and GPUs on Kubernetes and tells their level.

    Start with `pegel demo`.
    """


def main() -> None:
    """Run the command line. Mistakes of the user end with one line on standard error and exit code 2."""
    try:
        result = pegel.main(prog_name="pegel", standalone_mode=False)
    except _NO_ARGUMENTS as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        _fail(_plain(error.format_message()))
    except UserError as error:
        _fail(str(error))
    except click.Abort:
        sys.exit(130)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("pegel"):
            raise
        _fail(f"this command needs {error.name}, which its extra installs: pip install 'pegel[all]'")
    else:
        sys.exit(result if isinstance(result, int) else 0)


def _plain(message: str) -> str:
    for pattern, plainer in _PLAINER:
        message = re.sub(pattern, plainer, message)
    return message


def _fail(message: str) -> None:
    click.echo(f"pegel: {' '.join(message.split())}", err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
