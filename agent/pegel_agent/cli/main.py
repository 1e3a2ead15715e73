"""`pegel COMMAND`: arguments to calls, errors to one line and an exit code.

0: done, and no drift; 1: drift, or a check that failed, and nothing else; 2: bad input or use; 3: a failure of Pegel's
own. What a signal ends has 128 and its number, as everywhere: 130 after Ctrl-C, 141 where nobody reads the output.

Every option can also be set as PEGEL_COMMAND_OPTION in the environment and in a YAML file given by --config. An option
that may be repeated is a list in the file, and in the environment has commas.
"""

import contextlib
import errno
import importlib
import importlib.util
import math
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TextIO

import click
import yaml
from pegel_exporters import logs
from pegel_exporters.errors import OUR_FAILURE, UserError, place_of

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
_BAD_USE, _BY_SIGNAL = 2, 128
_THE_MACHINES = frozenset(
    {
        errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.EISDIR, errno.ENOENT, errno.ENOSPC, errno.ENOTDIR, errno.EPERM,
        errno.EROFS,
    }
)  # fmt: skip
"""Failures of the system that tell of a file, a folder or a disk: they are the user's to mend."""


@dataclass(slots=True)
class Run:
    """What main() wants to know of the command line that click reads."""

    debug: bool = False


def _set_debug(ctx: click.Context, _: click.Parameter, debug: bool) -> None:
    if debug and isinstance(ctx.obj, Run):
        ctx.obj.debug = True


def _debug_option() -> click.Option:
    return click.Option(
        ["--debug"], is_flag=True, is_eager=True, expose_value=False, callback=_set_debug,
        help="Show where an error came from.",
    )  # fmt: skip


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
            _debug_option(),
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
    except RecursionError as error:
        raise UserError(f"{path}: nested too deeply for a file of options") from error
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

    Exit codes of all commands: 0 done, and no drift; 1 drift, or a check that failed; 2 bad input or use, which one
    line on standard error tells; 3 a failure of Pegel's own.
    """


pegel.params.append(_debug_option())


def main() -> None:
    """Run the command line and exit: what goes wrong is one line on standard error and never a traceback, but with
    --debug."""
    run = Run()
    if "_PEGEL_COMPLETE" in os.environ:
        pegel.main(prog_name="pegel")  # a shell asks for words, and gets them
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # a library's, which a reader of results can do nothing about
    try:
        code = _result(run)
        if sys.stdout is not None:
            sys.stdout.flush()
    except _NO_ARGUMENTS as error:
        with contextlib.suppress(OSError):
            error.show()
        code = _BAD_USE
    except (click.Abort, KeyboardInterrupt):
        code = _BY_SIGNAL + signal.SIGINT
    except BrokenPipeError:
        code = _BY_SIGNAL + signal.SIGPIPE
    except Exception as error:
        code = _code_of(error)
        if run.debug:
            traceback.print_exc()
        _say(_one_line(error))
    _let_go(sys.stdout)
    sys.exit(code)


def _result(run: Run) -> int:
    """The exit code that a command has by itself."""
    try:
        with pegel.make_context("pegel", sys.argv[1:], obj=run) as ctx:
            result = pegel.invoke(ctx)
    except click.exceptions.Exit as left:
        return left.exit_code
    return result if isinstance(result, int) else 0


def _code_of(error: Exception) -> int:
    bad = isinstance(error, UserError | click.ClickException) or _extra(error) or _machines(error)
    return _BAD_USE if bad else OUR_FAILURE


def _one_line(error: Exception) -> str:
    """What a person needs to know of an error."""
    if isinstance(error, click.ClickException):
        return _plain(error.format_message())
    if isinstance(error, UserError):
        return str(error)
    if missing := _extra(error):
        return f"this command needs {missing}, which its extra installs: pip install 'pegel[all]'"
    if isinstance(error, OSError) and _machines(error):
        return f"{error.filename or 'cannot write the output'}: {error.strerror}"
    if isinstance(error, MemoryError):
        return "there is not enough memory for this"
    return f"this is a failure of Pegel's own, and no result: {place_of(error)}; --debug shows more"


def _extra(error: Exception) -> str:
    """The package that an extra would bring, empty where something else is wrong."""
    name = (isinstance(error, ModuleNotFoundError) and error.name) or ""
    return "" if name.startswith("pegel") or "." in name else name  # a package that lacks a part is broken


def _machines(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in _THE_MACHINES


def _plain(message: str) -> str:
    for pattern, plainer in _PLAINER:
        message = re.sub(pattern, plainer, message)
    return message


def _say(message: str) -> None:
    with contextlib.suppress(OSError):  # nobody may be listening
        click.echo(f"pegel: {' '.join(message.split())}", err=True)


def _let_go(stream: TextIO | None) -> None:
    """Python writes what is left when it ends, and where that fails has an exit code of its own."""
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())


if __name__ == "__main__":
    main()
