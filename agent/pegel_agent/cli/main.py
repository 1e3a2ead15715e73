"""`pegel COMMAND`: arguments to calls, errors to one line and exit code 2.

Every option can also be set as PEGEL_COMMAND_OPTION in the environment and in a YAML file given by --config.
"""

import importlib
import importlib.util
import logging
import sys
from collections.abc import Mapping

import click
import yaml
from pegel_exporters.errors import UserError

COMMANDS: Mapping[str, str] = {
    "demo": "The whole product on this machine, no cluster and no GPU.",
    "sidecar": "Next to a model: watch its traffic for drift and accuracy.",
    "gpu-exporter": "Publish this node's GPU metrics.",
    "profile": "Build or show a reference profile.",
    "check": "Test one batch of data against a profile.",
    "rules": "Write the Prometheus rules.",
    "dashboards": "Write the Grafana dashboards.",
}
"""Command to its line in --help. Each is `command` in the module of its name, imported only when it runs."""


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
    return command


def _read_config(ctx: click.Context, _: click.Parameter, path: str | None) -> None:
    if path is None:
        return
    try:
        with open(path, encoding="utf-8") as file:
            settings = yaml.safe_load(file) or {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict):
        raise UserError(f"{path}: expected options and their values, found {type(settings).__name__}")
    settings = {str(name).replace("-", "_"): value for name, value in settings.items()}
    known = {parameter.name for parameter in ctx.command.params if isinstance(parameter, click.Option)}
    for name in settings:
        if name not in known:
            raise UserError(f"{path}: {ctx.command.name} has no option {name.replace('_', '-')!r}")
    ctx.default_map = {**(ctx.default_map or {}), **settings}


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        import json  # only where asked for

        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _set_up_logging(_: click.Context, __: click.Parameter, log_format: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _JsonLines() if log_format == "json" else logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


@click.group(cls=_Commands, context_settings={"auto_envvar_prefix": "PEGEL", "help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pegel", prog_name="pegel")
def pegel() -> None:
    """Pegel watches models and GPUs on Kubernetes and tells their level.

    Start with `pegel demo`.
    """


def main() -> None:
    """Run the command line. Mistakes of the user end with one line on standard error and exit code 2."""
    try:
        result = pegel.main(standalone_mode=False)
    except click.ClickException as error:
        _fail(error.format_message())
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


def _fail(message: str) -> None:
    click.echo(f"pegel: {' '.join(message.split())}", err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
