"""Teams, labels and claims, from a real API server and a kubelet's gRPC server to the exporter's page."""

import base64
import http.server
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from msgspec import json as typed
from pegel_exporters.errors import UserError
from pegel_exporters.gpu.apiserver import ApiServer, ClusterWatch
from pegel_exporters.gpu.cluster import Slice, devices_of, label_names

from tests.apiserver.cluster import Cluster
from tests.exporters.gpu.conftest import until
from tests.exporters.gpu.kubelet_server import KubeletServer, claiming, pod
from tests.helm.rendering import template

pytestmark = pytest.mark.integration

NODE = "gpu-node-1"
T4 = "GPU-3bddc3a7-b210-577b-bcbf-7a4d0ebb5283"
OTHER_T4 = "GPU-8ceaf1c4-5be3-5d8b-9a5f-9d3f7e5b8d6a"


@dataclass
class Account:
    """A service account with the rights that the chart gives it, as a pod has it mounted."""

    cluster: Cluster
    folder: Path
    namespace: str

    @property
    def environment(self) -> dict[str, str]:
        server = yaml.safe_load(self.cluster.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
        host, _, port = server.removeprefix("https://").rpartition(":")
        return {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port, "NODE_NAME": NODE}

    def server(self) -> ApiServer:
        told = self.environment
        return ApiServer(self.folder, host=told["KUBERNETES_SERVICE_HOST"], port=int(told["KUBERNETES_SERVICE_PORT"]))

    def options(self, kubelet: KubeletServer) -> tuple[str, ...]:
        return "--pod-resources", str(kubelet.path), "--service-account", str(self.folder)

    def pod(self, name: str, labels: dict[str, str], *, node: str = NODE, namespace: str = "") -> None:
        """A pod of the API server's on a node. No kubelet runs it."""
        self.cluster.apply(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {"name": name, "labels": labels},
                    "spec": {
                        "nodeName": node,
                        "containers": [{"name": "model", "image": "m", "env": [{"name": "KEY", "value": "s3cr3t"}]}],
                    },
                }
            ),
            namespace=namespace or self.namespace,
        )


@pytest.fixture(scope="module")
def account(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    folder = tmp_path_factory.mktemp("serviceaccount")
    with cluster.namespace(enforce="privileged") as namespace:
        chart = template(
            "--set", "gpu.podAttribution.enabled=true,gpu.podAttribution.apiServer.enabled=true",
            "--namespace", namespace,
        )  # fmt: skip
        kinds = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding")
        objects = [one for one in yaml.safe_load_all(chart) if one and one["kind"] in kinds]
        cluster.apply(yaml.safe_dump_all(objects), namespace=namespace)
        done = cluster.kubectl("create", "token", "pegel-gpu-exporter", "-n", namespace)
        assert done.returncode == 0, done.stderr
        (folder / "token").write_text(done.stdout.strip())
        config = yaml.safe_load(cluster.kubeconfig.read_text())["clusters"][0]["cluster"]
        authority = config.get("certificate-authority")
        (folder / "ca.crt").write_bytes(
            Path(authority).read_bytes() if authority else base64.b64decode(config["certificate-authority-data"])
        )
        yield Account(cluster, folder, namespace)
        for one in objects:
            if one["kind"] != "ServiceAccount":
                cluster.kubectl("delete", one["kind"], one["metadata"]["name"], "--wait=false")


def slice_of(name: str, node: str, *devices: tuple[str, dict[str, str]], generation: int = 1) -> str:
    """A ResourceSlice as NVIDIA's driver writes them."""
    return yaml.safe_dump(
        {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "ResourceSlice",
            "metadata": {"name": name},
            "spec": {
                "driver": "gpu.nvidia.com",
                "nodeName": node,
                "pool": {"name": node, "generation": generation, "resourceSliceCount": 1},
                "devices": [
                    {"name": device, "attributes": {key: {"string": value} for key, value in attributes.items()}}
                    for device, attributes in devices
                ],
            },
        }
    )


def allocated(pod: str, namespace: str, team: str, uuid: str, attribution: str = "exclusive") -> str:
    return (
        f'nvidia_gpu_pod_allocated{{attribution="{attribution}",container="model",mig_profile="",mig_uuid="",'
        f'namespace="{namespace}",pod="{pod}",team="{team}",uuid="{uuid}"}} 1.0'
    )


UP = tuple(f'nvidia_gpu_kubernetes_api_up{{resource="{kind}"}} 1.0' for kind in ("pods", "resourceslices"))


def test_teams_and_allowed_labels_of_the_nodes_pods_are_published_and_no_others(
    account: Account, kubelet: KubeletServer, run_exporter: Callable[..., Any], promtool: str
) -> None:
    shop = account.namespace
    account.pod("ranking-1", {"pegel.dev/team": "search", "app.kubernetes.io/name": "ranking", "secret": "x1"})
    account.pod("plain-1", {"app.kubernetes.io/name": "plain"})
    account.pod("elsewhere-1", {"pegel.dev/team": "other"}, node="gpu-node-2")
    kubelet.pods = [
        pod("ranking-1", {"nvidia.com/gpu": [T4]}, namespace=shop),
        pod("plain-1", {"nvidia.com/gpu": [OTHER_T4]}, namespace=shop),
    ]
    command = run_exporter(
        "--simulate", "t4-time-sliced", *account.options(kubelet),
        "--pod-labels", "app.kubernetes.io/name,example.com/stage", environment=account.environment,
    )  # fmt: skip
    labels = 'label_app_kubernetes_io_name="{}",label_example_com_stage="",namespace="{}",pod="{}"'
    page = command.sees(
        *UP,
        allocated("ranking-1", shop, "search", T4),
        allocated("plain-1", shop, "", OTHER_T4),
        f"nvidia_gpu_pod_labels{{{labels.format('ranking', shop, 'ranking-1')}}} 1.0",
        f"nvidia_gpu_pod_labels{{{labels.format('plain', shop, 'plain-1')}}} 1.0",
    )
    assert "x1" not in page
    assert "elsewhere-1" not in page
    assert page.count("nvidia_gpu_pod_labels{") == 2
    command.wait(lambda: f'pod="ranking-1",team="search",uuid="{T4}"}}' in _cost(command.metrics()))
    assert "team search, alone" in command.get("/")[1].decode()

    # A label that changes and a pod that comes later are watched, not asked for.
    account.pod("ranking-1", {"pegel.dev/team": "search-2", "app.kubernetes.io/name": "ranking"})
    account.pod("late-1", {"pegel.dev/team": "night"})
    kubelet.pods = [*kubelet.pods[:1], pod("late-1", {"nvidia.com/gpu": [OTHER_T4]}, namespace=shop)]
    command.sees(allocated("ranking-1", shop, "search-2", T4), allocated("late-1", shop, "night", OTHER_T4))


def _cost(page: str) -> str:
    return "\n".join(line for line in page.splitlines() if line.startswith("nvidia_gpu_pod_cost_total"))


def test_claims_are_given_to_the_gpus_that_resource_slices_name(
    account: Account, kubelet: KubeletServer, run_exporter: Callable[..., Any]
) -> None:
    account.cluster.apply(slice_of("old", NODE, ("gpu-0", {"type": "gpu", "uuid": OTHER_T4}), generation=1))
    account.cluster.apply(
        slice_of("new", NODE, ("gpu-0", {"type": "gpu", "uuid": T4, "productName": "Tesla T4"}), generation=2)
    )
    account.cluster.apply(
        slice_of("far", "gpu-node-2", ("gpu-0", {"uuid": "GPU-00000000-0000-0000-0000-000000000000"}))
    )
    kubelet.pods = [claiming("trainer", f"{NODE}/gpu-0"), claiming("early", f"{NODE}/gpu-1")]
    command = run_exporter("--simulate", "t4-time-sliced", *account.options(kubelet), environment=account.environment)
    command.sees(*UP, allocated("trainer", "shop", "", T4), "nvidia_gpu_pod_resources_unknown_devices 1.0")
    assert f"Device ids that fit no GPU of this node: {NODE}/gpu-1." in command.get("/")[1].decode()
    devices = (("gpu-0", {"uuid": T4}), ("gpu-1", {"uuid": OTHER_T4}))
    account.cluster.apply(slice_of("new", NODE, *devices, generation=2))
    command.sees(allocated("early", "shop", "", OTHER_T4), "nvidia_gpu_pod_resources_unknown_devices 0.0")


def test_a_token_without_rights_is_told_and_costs_only_the_teams(
    account: Account, kubelet: KubeletServer, run_exporter: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "ca.crt").write_bytes((account.folder / "ca.crt").read_bytes())
    done = account.cluster.kubectl("create", "token", "default", "-n", account.namespace)
    (tmp_path / "token").write_text(done.stdout)
    kubelet.pods = [pod("ranking-1", {"nvidia.com/gpu": [T4]}, namespace=account.namespace)]
    command = run_exporter(
        "--simulate", "t4-time-sliced", "--pod-resources", str(kubelet.path), "--service-account", str(tmp_path),
        environment=account.environment,
    )  # fmt: skip
    command.sees('nvidia_gpu_kubernetes_api_up{resource="pods"} 0.0', allocated("ranking-1", account.namespace, "", T4))
    page = command.get("/")[1].decode()
    assert "The API server does not tell the teams and labels of pods: HTTP status 403: pods is forbidden" in page
    assert command.log.count("the API server does not tell the pods of this node") == 1
    # The kubelet writes a new token; the right one is taken up by itself.
    (tmp_path / "token").write_text((account.folder / "token").read_text())
    command.sees(*UP)


def test_the_service_account_may_read_nothing_else(account: Account) -> None:
    user = f"--as=system:serviceaccount:{account.namespace}:pegel-gpu-exporter"
    may = account.cluster.kubectl("auth", "can-i", "--list", user, "--no-headers").stdout
    own = [line.split()[0] for line in may.splitlines() if not line.startswith(("selfsubject", " ", "["))]
    assert sorted(own) == ["pods", "resourceslices.resource.k8s.io"], may


def test_of_pods_only_metadata_is_asked_for(account: Account) -> None:
    account.pod("with-secret", {"pegel.dev/team": "search"})
    server = account.server()
    accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    with server.get("/api/v1/pods", {"fieldSelector": f"spec.nodeName={NODE}"}, accept=accept, seconds=10.0) as answer:
        body = answer.read()
    assert json.loads(body)["kind"] == "PartialObjectMetadataList"
    assert b"with-secret" in body
    # What a server-side apply keeps of an object in its metadata is the names of fields, never their values.
    assert b"s3cr3t" not in body


def test_an_api_server_with_another_certificate_is_not_believed(account: Account, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    (tmp_path / "ca.crt").write_text(_authority(tmp_path))
    told = account.environment
    server = ApiServer(tmp_path, host=told["KUBERNETES_SERVICE_HOST"], port=int(told["KUBERNETES_SERVICE_PORT"]))
    watch = ClusterWatch(server, node=NODE, team_label="pegel.dev/team", labels=())
    watch.start()
    watch.wait(10.0)
    assert "certificate verify failed" in watch.cluster().errors["pods"].lower().replace("_", " ")


def _authority(folder: Path) -> str:
    words = (
        "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=another -addext subjectAltName=IP:127.0.0.1 -days 2"
        " -keyout key.pem -out other.crt"
    )
    subprocess.run(words.split(), cwd=folder, check=True, capture_output=True)
    return (folder / "other.crt").read_text()


def test_an_api_server_that_hangs_delays_the_exporter_by_seconds_and_never_its_page(
    account: Account, kubelet: KubeletServer, run_exporter: Callable[..., Any]
) -> None:
    kubelet.pods = [pod("ranking-1", {"nvidia.com/gpu": [T4]}, namespace="shop")]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environment = account.environment | {"KUBERNETES_SERVICE_PORT": str(silent.getsockname()[1])}
        command = run_exporter("--simulate", "t4-time-sliced", *account.options(kubelet), environment=environment)
        command.sees('nvidia_gpu_kubernetes_api_up{resource="pods"} 0.0', allocated("ranking-1", "shop", "", T4))


class Api(http.server.BaseHTTPRequestHandler):
    """An API server that answers lists and watches of pods with what a test puts here."""

    lists: ClassVar[list[bytes]] = []
    watches: ClassVar[list[bytes]] = []
    asked: ClassVar[list[str]] = []
    times: ClassVar[list[float]] = []

    def do_GET(self) -> None:
        self.times.append(time.monotonic())
        self.asked.append(self.path)
        answers = self.watches if "watch=true" in self.path else self.lists
        body = answers.pop(0) if len(answers) > 1 else answers[0]
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiServer]:
    """That server behind TLS, with a token for it."""
    certificate = _authority(tmp_path)
    (tmp_path / "ca.crt").write_text(certificate)
    (tmp_path / "token").write_text("t")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "other.crt", tmp_path / "key.pem")
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    Api.asked.clear()
    Api.times.clear()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield ApiServer(tmp_path, host="127.0.0.1", port=server.server_address[1])
    server.shutdown()
    server.server_close()


def ok(*lines: bytes) -> bytes:
    return b"HTTP/1.0 200 OK\r\n\r\n" + b"\n".join(lines)


def metadata(name: str, team: str, kind: str = "") -> bytes:
    one = {"metadata": {"name": name, "namespace": "shop", "uid": name, "labels": {"t": team}, "resourceVersion": "7"}}
    return json.dumps({"type": kind, "object": one} if kind else one).encode()


ONE = ok(
    b'{"kind":"PartialObjectMetadataList","metadata":{"resourceVersion":"5"},"items":[' + metadata("a", "x") + b"]}"
)


def followed(api: ApiServer, lists: list[bytes], watches: list[bytes]) -> ClusterWatch:
    Api.lists, Api.watches = lists, watches
    watch = ClusterWatch(api, node=NODE, team_label="t", labels=())
    threading.Thread(target=watch.pods.run, daemon=True).start()
    return watch


@pytest.mark.parametrize(
    ("lists", "watches", "error"),
    [
        ([b"HTTP/1.0 500 \r\n\r\n" + b"[" * 100_000], [ok()], "HTTP status 500"),
        ([ok(b'{"x":' + b"[" * 100_000)], [ok()], "its answer cannot be read (RecursionError)"),
        ([ok(b'{"kind":"PartialObjectMetadataList","metadata":{"name":"\xff"}}')], [ok()], "cannot be read"),
        ([ok(b'{"kind":"Status","metadata":{}}')], [ok()], "it answers with 'Status', which is no list"),
        ([b"HTTP/1.0 404 Not Found\r\n\r\n{}"], [ok()], "HTTP status 404"),
        ([b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabc"], [ok()], ""),
        ([b""], [ok()], ""),
        ([ONE], [b"HTTP/1.0 403 Forbidden\r\n\r\n" + b'{"message":"no\\nwatch"}'], "HTTP status 403: no watch"),
        ([ONE], [ok(b'{"type":"ERROR","object":{"code":500,"message":"a\\nforged line"}}')], "a forged line"),
        ([ONE], [ok(b'{"type":"MODIFIED","object":{"metadata":{"name":"\xff"}}}')], "cannot be read"),
    ],
)  # fmt: skip
def test_whatever_is_answered_is_a_reason_and_the_next_answer_is_taken(
    api: ApiServer, lists: list[bytes], watches: list[bytes], error: str
) -> None:
    good = ok(metadata("a", "x", "ADDED"))
    watch = followed(api, [*lists, ONE], [*watches, good] if lists == [ONE] else [good])
    until(lambda: watch.cluster().errors["pods"] not in ("", "it was not asked yet") or not error)
    if error:
        assert error in watch.cluster().errors["pods"]
    until(lambda: watch.cluster().errors["pods"] == "" and watch.cluster().teams == {("shop", "a"): "x"})


def test_a_pod_that_was_deleted_keeps_its_team_until_another_has_its_name(api: ApiServer) -> None:
    events = ok(metadata("a", "x", "DELETED"), metadata("b", "z", "ADDED"))
    watch = followed(api, [ONE], [events, ok()])
    until(lambda: ("shop", "b") in watch.cluster().teams)
    assert watch.cluster().teams == {("shop", "a"): "x", ("shop", "b"): "z"}


def test_a_new_pod_of_a_deleted_ones_name_has_not_its_team(api: ApiServer) -> None:
    bare = {"metadata": {"name": "a", "namespace": "shop", "uid": "new", "resourceVersion": "8"}}
    events = ok(metadata("a", "x", "DELETED"), json.dumps({"type": "ADDED", "object": bare}).encode())
    watch = followed(api, [ONE], [events, ok()])
    until(lambda: watch.cluster().teams == {("shop", "a"): ""})


def test_a_server_that_always_says_gone_is_asked_less_and_less(api: ApiServer) -> None:
    followed(api, [ONE], [b"HTTP/1.0 410 Gone\r\n\r\n{}"])
    until(lambda: len(Api.asked) >= 6)
    first, second = (Api.times[after] - Api.times[before] for before, after in ((1, 2), (3, 4)))
    assert first >= 0.5
    assert second >= 1.0
    assert "resourceVersion=0" in Api.asked[0]
    assert "resourceVersion=0" not in Api.asked[2], "what was too old would be told again"


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("token", "cannot read"),
        ("ca.crt", "cannot read"),
        ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_HOST and _PORT are not set"),
        ("NODE_NAME", "set NODE_NAME to the node's name"),
    ],
)
def test_what_the_api_server_cannot_be_asked_without_is_said_in_one_line(
    account: Account, kubelet: KubeletServer, tmp_path: Path, missing: str, words: str
) -> None:
    for name in ("token", "ca.crt"):
        if name != missing:
            (tmp_path / name).write_bytes((account.folder / name).read_bytes())
    environment = {**os.environ, **account.environment}
    environment.pop(missing, None)
    done = subprocess.run(
        [Path(sys.executable).with_name("pegel"), "gpu-exporter", "--simulate", "v100", "--listen", "127.0.0.1:0",
         "--pod-resources", kubelet.path, "--service-account", tmp_path],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_v1beta1_has_attributes_elsewhere_and_a_device_without_a_uuid_is_none() -> None:
    told = {
        "metadata": {"uid": "1"},
        "spec": {
            "driver": "gpu.nvidia.com",
            "pool": {"name": "n", "generation": 3},
            "devices": [
                {"name": "gpu-0", "basic": {"attributes": {"uuid": {"string": T4}, "index": {"int": 0}}}},
                {"name": "gpu-1", "attributes": {"uuid": {"string": OTHER_T4}}},
                {"name": "gpu-0-mig-1g5gb-0", "attributes": {"type": {"string": "mig"}}},
                {"name": "gpu-2"},
            ],
        },
    }
    one = typed.decode(json.dumps(told), type=Slice)
    assert devices_of([one], "gpu.nvidia.com") == {"n/gpu-0": T4, "n/gpu-1": OTHER_T4}
    assert devices_of([one], "other.example.com") == {}


def test_labels_that_would_have_one_name_are_refused() -> None:
    assert label_names(["app.kubernetes.io/name", "tier"]) == ("label_app_kubernetes_io_name", "label_tier")
    with pytest.raises(UserError, match="two labels would be 'label_a_b'"):
        label_names(["a-b", "a.b"])
    with pytest.raises(UserError, match="is no name of a label"):
        label_names(['x"} 1'])
