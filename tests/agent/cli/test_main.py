"""The frame of all commands: options from files and the environment, help, and errors in one line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from pegel_agent.cli.main import pegel

PEGEL = Path(sys.executable).parent / "pegel"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.csv"
    path.write_text("id,age,square feet\n" + "".join(f"{i},{i % 50},{i % 9}\n" for i in range(500)), encoding="utf-8")
    return path


def build(data: Path, *arguments: str, **environment: str) -> Result:
    output = str(data.parent / "profile.json")
    return CliRunner().invoke(
        pegel, ["profile", "build", str(data), "-o", output, *arguments], env=environment, prog_name="pegel"
    )


def configured(data: Path, settings: str) -> Result:
    path = data.parent / "pegel.yaml"
    path.write_text(settings, encoding="utf-8")
    return build(data, "--config", str(path))


def built(data: Path) -> dict[str, object]:
    profile = json.loads((data.parent / "profile.json").read_text(encoding="utf-8"))
    return {**profile, "features": [feature["name"] for feature in profile["features"]]}


@pytest.mark.parametrize(
    ("settings", "features"),
    [
        ("", ["id", "age", "square feet"]),
        ("# nothing\n", ["id", "age", "square feet"]),
        ("ignore: id\n", ["age", "square feet"]),
        ("ignore: [id, square feet]\n", ["age"]),
        ("ignore:\n- id\nlabel:\n- age\n", ["square feet"]),
    ],
)
def test_options_may_come_from_a_file(data: Path, settings: str, features: list[str]) -> None:
    result = configured(data, settings)
    assert result.exit_code == 0, result
    assert built(data)["features"] == features


@pytest.mark.parametrize("text", ["1.10", "5:00", "0x10", "yes", "2024-01-01", "1_000"])
def test_a_value_in_a_file_stays_as_it_is_written(data: Path, text: str) -> None:
    assert configured(data, f"model-version: {text}\nmodel_name: houses\n").exit_code == 0
    assert (built(data)["model_version"], built(data)["model_name"]) == (text, "houses")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("model-name: a\nwindo: 5m\n", "line 2: pegel profile build has no option 'windo'"),
        ("config: other.yaml\n", "pegel profile build has no option 'config'"),
        ("model-name: null\n", "line 1: 'model-name' needs a value"),
        ("model-name:\n", "line 1: 'model-name' needs a value"),
        ("ignore: [id, ~]\n", "line 1: 'ignore' needs a value"),
        ("model-name: {a: b}\n", "line 1: 'model-name' needs a value"),
        ("model-name: [a, b]\n", "line 1: 'model-name' takes one value"),
        ("model-name: a\nmodel_name: b\n", "line 2: 'model_name' is given twice"),
        ("- ignore\n", "expected lines such as"),
        ("ignore: [\n", "not a YAML file"),
        ("a: \x00\n", "not a YAML file"),
        ("[" * 5_000, "nested too deeply"),
    ],
)
def test_a_file_of_options_that_can_not_be_used_is_refused(data: Path, settings: str, words: str) -> None:
    result = configured(data, settings)
    assert words in str(result.exception)
    assert "pegel.yaml" in str(result.exception)
    assert "\n" not in str(result.exception)
    assert not (data.parent / "profile.json").exists()


def test_the_option_beats_the_environment_and_that_beats_the_file(data: Path) -> None:
    path = data.parent / "pegel.yaml"
    path.write_text("model-name: file\nmodel-version: file\nignore: id\n", encoding="utf-8")
    arguments = ("--config", str(path), "--model-name", "option")
    names = {"PEGEL_PROFILE_BUILD_MODEL_NAME": "environment", "PEGEL_PROFILE_BUILD_MODEL_VERSION": "environment"}
    assert build(data, *arguments, **names).exit_code == 0
    assert (built(data)["model_name"], built(data)["model_version"]) == ("option", "environment")
    assert built(data)["features"] == ["age", "square feet"]


@pytest.mark.parametrize(
    ("value", "features"),
    [
        ("id,square feet", ["age"]),
        (" id , age ", ["square feet"]),
        ("id age", ["square feet"]),
        ("square feet,", ["id", "age"]),
    ],
)
def test_names_in_the_environment_have_commas_or_spaces_between_them(
    data: Path, value: str, features: list[str]
) -> None:
    assert build(data, PEGEL_PROFILE_BUILD_IGNORE=value).exit_code == 0
    assert built(data)["features"] == features


@pytest.mark.integration
@pytest.mark.parametrize("command", [(), ("profile",)])
def test_without_a_command_the_help_is_shown_as_it_is(command: tuple[str, ...]) -> None:
    alone = subprocess.run([PEGEL, *command], capture_output=True, text=True, check=False)
    asked = subprocess.run([PEGEL, *command, "--help"], capture_output=True, text=True, check=True)
    assert (alone.stdout or alone.stderr) == asked.stdout
    assert "\n\nCommands:\n" in asked.stdout


@pytest.mark.integration
@pytest.mark.parametrize("interval", ["50ms", "2h", "nan", "5", "0s", "-5s", "ms"])
def test_an_interval_that_can_not_be_is_refused(interval: str) -> None:
    done = subprocess.run(
        [PEGEL, "gpu-exporter", "--interval", interval], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"pegel: --interval {interval!r}: write a duration between 100ms and 1h, such as 5s\n"


@pytest.mark.integration
def test_the_gpu_exporter_takes_milliseconds_and_says_where_it_can_be_read() -> None:
    command = [PEGEL, "gpu-exporter", "--simulate", "v100", "--listen", ":0", "--interval", "500ms"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        process.terminate()
    assert "serving simulated GPUs (v100) on http://localhost:" in line
