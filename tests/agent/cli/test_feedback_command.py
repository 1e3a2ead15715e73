"""`pegel feedback` and the replicas that it reaches: two real sidecars on one port of two addresses."""

import contextlib
import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pegel_agent.cluster.feedback_client import Sender, batches, replicas
from pegel_exporters.errors import UserError

from tests.agent.sidecar.tap.tap_process import BODY, free_ports, model, predict, until

pytestmark = pytest.mark.integration

PEGEL = Path(sys.executable).parent / "pegel"
HOSTS = ("127.0.0.1", "127.0.0.2")


@dataclass
class Sidecar:
    """A running `pegel sidecar`."""

    host: str
    port: int
    admin: int
    process: subprocess.Popen[bytes]

    def predict(self, request_id: str) -> None:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request("POST", "/v1/models/m:predict", BODY, {"X-Request-Id": request_id})
            assert connection.getresponse().read() == b'{"predictions": [1]}'

    def page(self) -> str:
        connection = http.client.HTTPConnection(self.host, self.admin, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()

    def counted(self, series: str) -> float:
        found = [line for line in self.page().splitlines() if line.startswith(series.split("{", maxsplit=1)[0])]
        label = series.partition("{")[2].rstrip("}")
        return sum(float(line.split()[-1]) for line in found if label in line)

    def end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def fleet(folder: Path, *options: str, hosts: tuple[str, ...] = HOSTS) -> Iterator[list[Sidecar]]:
    """A sidecar on each address, all with the same admin port, in front of one model that answers 1."""
    port, admin = free_ports(2)
    running: list[Sidecar] = []
    with model(predict) as upstream:
        try:
            for host in hosts:
                with (folder / f"{host}.log").open("wb") as log:
                    process = subprocess.Popen(
                        [PEGEL, "sidecar", "--listen", f"{host}:{port}", "--admin", f"{host}:{admin}",
                         "--upstream", f"127.0.0.1:{upstream}", *options],
                        stdout=log, stderr=log,
                    )  # fmt: skip
                running.append(Sidecar(host, port, admin, process))
            for sidecar in running:
                until(lambda one=sidecar: _up(one), seconds=60)  # type: ignore[misc]
            yield running
        finally:
            for sidecar in running:
                sidecar.end()


def _up(sidecar: Sidecar) -> bool:
    with contextlib.suppress(OSError):
        return sidecar.counted("pegel_tap_analyser_up") == 1
    return False


def served(sidecars: list[Sidecar], requests: int) -> list[str]:
    """Asks the sidecars in turn, and waits until they have read it; the requests' ids, in order."""
    ids = [f"order-{number}" for number in range(requests)]
    for number, request_id in enumerate(ids):
        sidecars[number % len(sidecars)].predict(request_id)
    until(lambda: sum(each.counted('pegel_tap_exchanges_total{outcome="analysed"}') for each in sidecars) == requests)
    return ids


def pegel(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PEGEL, "feedback", *arguments], capture_output=True, text=True, check=False, cwd=folder, timeout=300
    )


def csv(folder: Path, ids: list[str], *, column: str = "id") -> None:
    lines = "".join(f"{one},1,Anna\n" for one in ids)
    (folder / "labels.csv").write_text(f"{column},label,customer\n{lines}", encoding="utf-8")


def test_each_label_reaches_the_replica_that_served_its_request(tmp_path: Path) -> None:
    with fleet(tmp_path) as sidecars:
        to = [word for each in sidecars for word in ("--to", f"http://{each.host}:{each.admin}")]
        ids = served(sidecars, 40)
        csv(tmp_path, [*ids, "nobody's"])
        done = pegel(tmp_path, "labels.csv", *to)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("labels.csv: 41 labels to 2 replicas: 40 counted, 1 of a request that no replica")
        assert [each.counted('ml_labels_total{outcome="matched"}') for each in sidecars] == [20, 20]

        csv(tmp_path, ids)
        again = pegel(tmp_path, "labels.csv", *to)
        assert (again.returncode, again.stderr) == (0, "")
        assert again.stdout == "labels.csv: 40 labels to 2 replicas: 0 counted, 40 sent before\n"
        assert [each.counted('ml_labels_total{outcome="matched"}') for each in sidecars] == [20, 20]

        lines = [json.dumps({"prediction": 1, "label": n % 2, "customer": "Anna"}) for n in range(2_500)]
        (tmp_path / "labels.ndjson").write_text("\n".join(lines), encoding="utf-8")
        told = pegel(tmp_path, "labels.ndjson", *to)
        assert told.stdout == "labels.ndjson: 2,500 labels to 2 replicas: 2,500 counted\n"
        matched = [each.counted('ml_labels_total{outcome="matched"}') for each in sidecars]
        assert sorted(matched) == [20, 2_520], "one replica has all those that bring their prediction"

        (tmp_path / "other.ndjson").write_text('{"id": "order-1", "label": 1, "model_name": "other"}', encoding="utf-8")
        refused = pegel(tmp_path, "other.ndjson", *to)
        assert refused.returncode == 2
        assert "1 rejected (item 0: model_name or model_version is another one's)" in refused.stdout


def test_one_name_stands_for_all_its_addresses(tmp_path: Path) -> None:
    with fleet(tmp_path) as sidecars:
        ids = served(sidecars, 10)
        found = replicas([f"http://churn.shop.svc:{sidecars[0].admin}"], lambda _host, _port: HOSTS)
        with Sender(found) as sender:
            for batch in batches({"id": one, "label": 1} for one in ids):
                sender.send(batch)
        assert (sender.outcome.counted, sender.outcome.labels, len(found)) == (10, 10, 2)
        assert [each.counted('ml_labels_total{outcome="matched"}') for each in sidecars] == [5, 5]


def test_a_replica_that_is_gone_is_named_and_the_others_are_told(tmp_path: Path) -> None:
    with fleet(tmp_path) as sidecars:
        ids = served(sidecars, 10)
        sidecars[1].end()
        found = replicas([f"http://{each.host}:{each.admin}" for each in sidecars])
        with Sender(found, pause=0.01) as sender:
            for batch in batches(
                {"id": f"{one}{more}", "label": 1} for more in ("", *map(str, range(200))) for one in ids
            ):
                sender.send(batch)
        outcome = sender.outcome
        assert (outcome.counted, outcome.labels) == (5, 2_010)
        ((lost, why),) = outcome.lost.items()
        assert (str(lost), why.labels) == (f"http://127.0.0.2:{sidecars[1].admin}", 2_010)
        sidecars[0].end()
        with pytest.raises(UserError, match=r"no replica answers; http://127\.0\.0\.[12]:\d+: .*refused"):
            sender_to_nobody(found)


def sender_to_nobody(found: object) -> None:
    with Sender(found, pause=0.01) as sender:  # type: ignore[arg-type]
        for batch in batches([{"id": "a", "label": 1}]):
            sender.send(batch)


def test_a_token_is_asked_for_and_given(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    csv(tmp_path, ["1"], column="prediction")
    with fleet(tmp_path, "--feedback-token", str(tmp_path / "token"), hosts=HOSTS[:1]) as (sidecar,):
        to = ("--to", f"http://127.0.0.1:{sidecar.admin}")
        without = pegel(tmp_path, "labels.csv", *to)
        assert (without.returncode, without.stdout) == (2, "")
        assert "refuses the token (status 401); give its file to --token" in without.stderr
        given = pegel(tmp_path, "labels.csv", *to, "--token", "token")
        assert (given.returncode, given.stdout) == (0, "labels.csv: 1 label to 1 replica: 1 counted\n")


def test_what_is_no_admin_port_is_said_to_be_none(tmp_path: Path) -> None:
    csv(tmp_path, ["a"])
    with model(predict) as port:
        done = pegel(tmp_path, "labels.csv", "--to", f"http://127.0.0.1:{port}")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "answers with status 200 and not as a sidecar does; --to needs its admin port" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("labels.csv",), "Missing option '--to'"),
        (("nowhere.csv", "--to", "http://127.0.0.1:9"), "nowhere.csv does not exist"),
        (("bad.ndjson", "--to", "http://127.0.0.1:9"), "bad.ndjson, line 2: no label"),
        (("empty.ndjson", "--to", "http://127.0.0.1:9"), "empty.ndjson has no labels"),
        (("labels.csv", "--to", "127.0.0.1:9466"), "--to 127.0.0.1:9466: expected a URL such as http"),
        (("labels.csv", "--to", "http://nowhere.invalid:9466"), "cannot resolve nowhere.invalid"),
        (("labels.csv", "--to", "http://127.0.0.1:9", "--token", "none"), "cannot read the token in none"),
    ],
)
def test_what_can_not_be_sent_is_one_line_and_exit_code_2(
    tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    csv(tmp_path, ["a"])
    (tmp_path / "bad.ndjson").write_text('{"id": "a", "label": 1}\n{"id": "b"}\n')
    (tmp_path / "empty.ndjson").write_text("\n")
    done = pegel(tmp_path, *arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert words in done.stderr


def test_a_person_at_a_terminal_sees_progress(tmp_path: Path) -> None:
    csv(tmp_path, ["1"] * 1_500, column="prediction")
    with fleet(tmp_path, hosts=HOSTS[:1]) as (sidecar,):
        leader, follower = os.openpty()
        subprocess.run(
            [PEGEL, "feedback", "labels.csv", "--to", f"http://127.0.0.1:{sidecar.admin}"],
            stdout=subprocess.DEVNULL, stderr=follower, check=True, cwd=tmp_path,
        )  # fmt: skip
        os.close(follower)
        shown = os.read(leader, 65_536).decode()
        os.close(leader)
    assert "Checking labels.csv" in shown
    assert "Sending labels.csv" in shown
    assert "100%" in shown
