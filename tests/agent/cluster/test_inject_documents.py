"""What stays of a manifest that is changed: its layout, its comments, and every value as it was written."""

import pytest
from click.testing import CliRunner
from pegel_agent.cli.main import pegel

from tests.agent.cluster.shapes import injected, shape


def test_windows_line_ends_stay() -> None:
    manifest = shape("a-bare-pod").replace("\n", "\r\n")
    result = CliRunner().invoke(pegel, ["inject", "-f", "-"], input=manifest.encode(), prog_name="pegel")
    lines = result.stdout_bytes.split(b"\n")
    assert len(lines) > 60
    assert all(line.endswith(b"\r") for line in lines[:-1])


def test_comments_quotes_and_untouched_documents_stay_as_they_were() -> None:
    text = injected(shape("empty-documents"))
    assert text.startswith("---\n# nothing here\n---\n")
    assert 'keep:   "as it is"   # with its spaces' in text
    assert "name: model  # the only one" in injected(shape("a-bare-pod"))


LAYOUTS = {
    "4 columns": """\
kind: Pod
apiVersion: v1
metadata:
    name: x
spec:
    containers:
    - name: model
      ports:
      - name: http
        containerPort: 80
""",
    "lists at 4 columns": """\
kind: Pod
apiVersion: v1
spec:
  containers:
      - name: model
        ports:
            - name: http
              containerPort: 80
""",
    "in braces": """\
kind: Pod
apiVersion: v1
spec:
  containers:
  - {name: model, ports: [{name: http, containerPort: 80}]}
""",
    "comments": """\
kind: Pod # a
apiVersion: v1
spec: # b
  containers:
  - name: model # c
    ports:
    - name: http
      containerPort: 80
""",
    "a directive": """\
%YAML 1.1
---
kind: Pod
apiVersion: v1
spec:
  containers:
  - name: model
    ports:
    - name: http
      containerPort: 80
""",
    "kubectl's JSON": """\
{
    "kind": "Pod",
    "apiVersion": "v1",
    "spec": {
        "containers": [
            {
                "name": "model",
                "ports": [
                    {
                        "name": "http",
                        "containerPort": 80
                    }
                ]
            }
        ]
    }
}
""",
}


@pytest.mark.parametrize("line_end", ["\n", "\r\n"], ids=["unix", "windows"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_manifest_keeps_its_layout_through_injection_and_undo(layout: str, line_end: str) -> None:
    manifest = LAYOUTS[layout].replace("\n", line_end).encode()
    command = ["inject", "-f", "-"]
    result = CliRunner().invoke(pegel, command, input=manifest, prog_name="pegel")
    assert b"pegel-sidecar" in result.stdout_bytes
    assert b"\r\r" not in result.stdout_bytes
    back = CliRunner().invoke(pegel, [*command, "--undo"], input=result.stdout_bytes, prog_name="pegel")
    assert back.stdout_bytes == manifest


ODD = """\
kind: Pod
apiVersion: v1
metadata:
  name: x
spec:
  containers:
  - name: model
    ports:
    - name: http
      containerPort: 8080
odd:
  1: one
  yes: two
  a: [1:30, 9:30, 10:30:59, 1e3, 0o17, 0644, .5, 1_000, 0x1F, 1234e567]
  b: [y, True, ~, null, 2024-01-01, =, !custom x, "1e3"]
  long: LONG
  empty:
""".replace("LONG", " ".join(["word"] * 200))


def test_values_that_stay_are_written_as_they_were_however_libraries_read_them() -> None:
    assert ODD.partition("odd:")[2] in injected(ODD)
    assert injected(injected(ODD), ["--undo"]) == ODD


def test_values_that_stay_are_written_as_they_were_where_aliases_are_written_out() -> None:
    shared = ODD.replace("metadata:", "metadata: &m").replace("odd:", "again: *m\nodd:")
    text = injected(shared)
    for word in ("1:30", "10:30:59", "1e3", "0o17", "0644", "1234e567", "True", '"1e3"', "2024-01-01"):
        assert f"- {word}\n" in text or f" {word}," in text, word
    assert "again:\n  name: x\n" in text
    assert "  yes: two\n" in text
