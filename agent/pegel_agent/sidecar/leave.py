"""A preStop hook: `python3 -m pegel_agent.sidecar.leave FILE SECONDS` tells the sidecar that its pod is leaving, and
lasts as long as that takes to be known.

It loads next to nothing, as it runs within the container's memory.
"""

import sys
import time
from pathlib import Path


def main(file: str, seconds: str) -> None:
    """Make the file that the sidecar looks for (its --leave-file), and wait."""
    Path(file).touch()
    time.sleep(float(seconds))


if __name__ == "__main__":
    main(*sys.argv[1:])
