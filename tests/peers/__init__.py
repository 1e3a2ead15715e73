"""Pegel's figures beside those of the peers that people know. `make test-peers` runs them; each peer has an environment
of its own, in which a script reads a file and answers JSON."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent


def ask(peer: str, script: str, argument: Path) -> Any:
    """What a script says in a peer's environment. Fails where there is none, or the script does."""
    found = subprocess.run(
        [ROOT / "benchmarks" / f"install-{peer}", "--where"],
        env=os.environ | {"PYTHON": sys.executable}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    done = subprocess.run(
        [Path(found.stdout.strip(), "bin", "python"), ROOT / script, argument],
        env=os.environ | {"DO_NOT_TRACK": "1", "NML_DISABLE_USAGE_LOGGING": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
