"""Each image of the Containerfile is built by its own steps on a bare Debian, and its roles start as in Kubernetes."""

import contextlib
import http.client
import os
import re
import stat
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.agent.cluster.shapes import injected
from tests.agent.sidecar.tap.tap_process import ANSWER_BODY, BODY, free_ports, model, predict
from tests.images import Image, built, started

pytestmark = pytest.mark.integration

OWN_USER = ""
OPENSHIFT_USER = "1000730000:0"
ROOT_WITHOUT_CAPABILITIES = "0:0"
MEGABYTES = {"exporter": 150, "sidecar": 340, "cluster": 150}
COMPILER_OR_INSTALLER = re.compile(r"([\w-]+-)?(as|c\+\+|cc|clang|cpp|g\+\+|gcc|ld|make|pip|uv)[\d.-]*")
PYC_UNCHECKED = 1
POD = """{apiVersion: v1, kind: Pod, metadata: {name: churn}, spec: {containers: [
  {name: model, image: churn:7, ports: [{name: http, containerPort: 8501}]}]}}"""


@pytest.fixture(scope="module")
def exporter() -> Iterator[Image]:
    with built("exporter") as image:
        yield image


@pytest.fixture(scope="module")
def sidecar() -> Iterator[Image]:
    with built("sidecar") as image:
        yield image


@pytest.fixture(scope="module")
def cluster() -> Iterator[Image]:
    with built("cluster") as image:
        yield image


@pytest.fixture(params=["exporter", "sidecar", "cluster"])
def image(request: pytest.FixtureRequest) -> Image:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Image)
    return found


def files(image: Image) -> Iterator[tuple[str, os.stat_result]]:
    """Every path of an image as its containers see it, but for devices, which are the runtime's."""
    for folder, folders, names in os.walk(image.root):
        if Path(folder) == image.root:
            folders.remove("dev")
        for name in folders + names:
            path = Path(folder, name)
            yield "/" + str(path.relative_to(image.root)), path.lstat()


def page(port: int, path: str, body: bytes | None = None) -> str:
    """What is answered there; empty while nobody answers or the answer is a refusal."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", body, timeout=10) as answer:
            return str(answer.read().decode())
    except (urllib.error.URLError, ConnectionError):
        return ""


def help_of(image: Image, command: str) -> str:
    with started(image, command, "--help") as container:
        code, text = container.end_of_itself()
    assert code == 0, text
    return text


# What is in them


def test_the_user_is_a_number_that_kubernetes_can_tell_from_root(image: Image) -> None:
    assert image.settings["User"] == "65532:65532"
    assert image.settings["Entrypoint"] == ["pegel"]


def test_no_compiler_and_no_installer_is_in_it(image: Image) -> None:
    paths = [Path(path) for path, _ in files(image)]
    programs = [path.name for path in paths if path.parent.name in {"bin", "sbin"}]
    assert "python3.11" in programs
    assert list(filter(COMPILER_OR_INSTALLER.fullmatch, programs)) == []
    assert [path for path in paths if path.name in {"pip", "hatchling", "setuptools", "ensurepip"}] == []


def test_no_file_lends_anyone_privileges(image: Image) -> None:
    regular = [(path, status) for path, status in files(image) if stat.S_ISREG(status.st_mode)]
    assert [path for path, status in regular if status.st_mode & (stat.S_ISUID | stat.S_ISGID)] == []
    assert [path for path, _ in regular if "security.capability" in os.listxattr(f"{image.root}{path}")] == []


def test_any_user_can_read_what_runs_and_none_but_root_could_write_it(image: Image) -> None:
    ours = [
        (path, status) for path, status in files(image)
        if path.startswith(("/usr/", "/opt/")) and not stat.S_ISLNK(status.st_mode)
    ]  # fmt: skip
    needed = {True: 0o555, False: 0o444}
    assert [path for path, status in ours if ~status.st_mode & needed[stat.S_ISDIR(status.st_mode)]] == []
    assert [path for path, status in ours if status.st_uid != 0 or status.st_mode & 0o002] == []


def test_nothing_is_left_of_the_building(image: Image) -> None:
    left = ("/root/.", "/tmp/", "/var/tmp/", "/var/log/", "/var/cache/apt/", "/var/lib/apt/lists/", "/src", "/dist")
    at_home = {"/root/.bashrc", "/root/.profile"}  # Debian's
    assert [path for path, _ in files(image) if path.startswith(left) and path not in at_home] == []


def test_every_module_has_bytecode_that_no_change_of_times_makes_stale(image: Image) -> None:
    stale = [
        source for folder in ("usr/lib/python3.11", "opt/pegel/lib") for source in (image.root / folder).rglob("*.py")
        if int.from_bytes(bytecode(source)[4:8], "little") != PYC_UNCHECKED
    ]  # fmt: skip
    assert stale == []


def bytecode(source: Path) -> bytes:
    compiled = source.parent / "__pycache__" / f"{source.stem}.cpython-311.pyc"
    return compiled.read_bytes() if compiled.exists() else b""


def test_it_is_no_larger_than_the_page_says(image: Image) -> None:
    size = sum({status.st_ino: status.st_size for _, status in files(image)}.values())
    assert size < MEGABYTES[image.target] * 10**6, size


def test_its_labels_name_version_licence_and_base(image: Image) -> None:
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in image.settings["Labels"].items()}
    assert labels["licenses"] == "Apache-2.0"
    assert (image.root / f"opt/pegel/lib/python3.11/site-packages/pegel-{labels['version']}.dist-info").is_dir()
    assert {"title", "description", "revision", "base.name"} <= set(labels)


# What they do


@pytest.mark.parametrize("user", [OWN_USER, OPENSHIFT_USER, ROOT_WITHOUT_CAPABILITIES])
def test_the_exporter_serves_without_any_place_to_write(exporter: Image, user: str) -> None:
    (port,) = free_ports(1)
    arguments = ("gpu-exporter", "--simulate", "t4-time-sliced", "--listen", f"127.0.0.1:{port}")
    with started(exporter, *arguments, user=user) as container:
        container.wait_until(lambda: "nvidia_gpu_utilization_ratio{" in page(port, "/metrics"))
        assert page(port, "/healthz")
        assert container.end() == 0


def test_an_exporter_without_a_driver_says_so_and_serves(exporter: Image) -> None:
    (port,) = free_ports(1)
    with started(exporter, "gpu-exporter", "--listen", f"127.0.0.1:{port}") as container:
        container.wait_until(lambda: metric(port, "nvidia_gpu_up", gpu="", uuid="") == 0)
        assert container.end() == 0


@pytest.mark.parametrize("user", [OWN_USER, OPENSHIFT_USER])
def test_the_sidecar_forwards_and_analyses_with_tmp_alone_to_write_to(
    sidecar: Image, user: str, tmp_path: Path
) -> None:
    port, admin = free_ports(2)
    with model(predict) as upstream, started(
        sidecar, "sidecar", "--listen", f"127.0.0.1:{port}", "--upstream", f"127.0.0.1:{upstream}",
        "--admin", f"127.0.0.1:{admin}", user=user, temporary=tmp_path,
    ) as container:  # fmt: skip
        container.wait_until(lambda: metric(admin, "pegel_tap_analyser_up") == 1)
        assert page(admin, "/healthz")
        assert page(port, "/v1/models/m:predict", BODY) == ANSWER_BODY.decode()
        container.wait_until(lambda: metric(admin, "pegel_tap_exchanges_total", outcome="analysed") == 1)
        assert container.end() == 0
    assert list(tmp_path.iterdir()) == []


def test_the_hook_that_injection_writes_tells_the_sidecar_that_its_pod_is_leaving(
    sidecar: Image, tmp_path: Path
) -> None:
    spec = yaml.safe_load(injected(POD))["spec"]
    (container,) = (one for one in spec["initContainers"] if "preStop" in one.get("lifecycle", {}))
    (leave,) = (argument for argument in container["args"] if argument.startswith("--leave-file"))
    port, admin = free_ports(2)
    with model(predict) as upstream, started(
        sidecar, "sidecar", "--listen", f"127.0.0.1:{port}", "--upstream", f"127.0.0.1:{upstream}",
        "--admin", f"127.0.0.1:{admin}", leave, temporary=tmp_path,
    ) as running:  # fmt: skip
        running.wait_until(lambda: metric(admin, "pegel_tap_analyser_up") == 1)
        assert answer_ends_the_connection(port) is False
        assert running.execute(container["lifecycle"]["preStop"]["exec"]["command"]) == (0, "")
        assert answer_ends_the_connection(port) is True
        assert running.end() == 0


def answer_ends_the_connection(port: int) -> bool:
    """Whether a good answer says that its connection is closed after it."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as client:
        client.request("POST", "/v1/models/m:predict", BODY)
        answer = client.getresponse()
        assert answer.read() == ANSWER_BODY
        return answer.getheader("Connection") == "close"


def metric(port: int, name: str, **labels: str) -> float | None:
    """A sample of /metrics, None where there is none."""
    found = text_string_to_metric_families(page(port, "/metrics"))
    values = (
        s.value for family in found for s in family.samples if s.name == name and labels.items() <= s.labels.items()
    )
    return next(values, None)


@pytest.mark.parametrize("user", [OWN_USER, OPENSHIFT_USER])
@pytest.mark.parametrize("what", ["rules", "dashboards"])
def test_the_cluster_image_writes_generated_files(cluster: Image, what: str, user: str, tmp_path: Path) -> None:
    with started(cluster, what, "-o", "/tmp/x", user=user, temporary=tmp_path) as container:
        code, text = container.end_of_itself()
    assert code == 0, text
    assert sorted(f"/tmp/x/{file.name}" for file in (tmp_path / "x").iterdir()) == sorted(text.split())


def test_a_sidecar_without_a_place_to_write_says_what_it_needs(sidecar: Image) -> None:
    ports = free_ports(2)
    with started(
        sidecar, "sidecar", "--listen", f"127.0.0.1:{ports[0]}", "--admin", f"127.0.0.1:{ports[1]}"
    ) as container:
        code, said = container.end_of_itself()
    assert code == 2
    assert "mount an emptyDir at /tmp" in said


def test_the_cluster_image_injects_what_it_gets_from_a_file(cluster: Image, tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(POD)
    with started(cluster, "inject", "-f", "/tmp/model.yaml", temporary=tmp_path) as container:
        code, text = container.end_of_itself()
    assert (code, "pegel.dev/injected" in text) == (0, True), text


def test_each_image_says_which_commands_it_has(image: Image) -> None:
    role = {"exporter": "gpu-exporter", "sidecar": "sidecar", "cluster": "rules"}[image.target]
    assert f"pegel {role}" in help_of(image, role)


def test_a_file_system_that_should_be_read_only_is(cluster: Image) -> None:
    """Else the other tests would prove nothing."""
    with started(cluster, "rules", "-o", "/opt/x", user=ROOT_WITHOUT_CAPABILITIES) as container:
        code, text = container.end_of_itself()
    assert (code, "Read-only file system" in text) == (2, True), text
