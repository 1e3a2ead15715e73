"""The C double of NVML: how it is built, and what it is told to say what a node says."""

import subprocess
from collections.abc import Mapping
from importlib.metadata import files
from pathlib import Path

from pegel_exporters.gpu.readings import Node, Reading

SOURCE = Path(__file__).with_name("double.c")


def header() -> Path:
    """NVIDIA's own nvml.h."""
    (path,) = (file for file in files("nvidia-nvml-dev") or () if file.name == "nvml.h")
    return Path(str(path.locate()))


def build(folder: Path, *, gcc: str = "gcc", without: tuple[str, ...] = ()) -> Path:
    """Build the library in a folder, without the symbols named, as an older driver lacks them."""
    hidden, built, library = folder / "hidden.map", folder / "built.so", folder / "libnvidia-ml.so.1"
    hidden.write_text(f"{{ local: {' '.join(f'{name};' for name in without)} }};" if without else "{ global: *; };")
    subprocess.run(
        [
            gcc, "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-Wmissing-prototypes",
            f"-I{header().parent}", f"-Wl,--version-script={hidden}", str(SOURCE), "-o", str(built),
        ],
        check=True,
    )  # fmt: skip
    built.rename(library)
    return library


def lines_of_node(node: Node) -> list[str]:
    major, minor = node.cuda_version.split(".")
    lines = [f"driver_version {node.driver_version}", f"cuda_version {int(major) * 1000 + int(minor) * 10}"]
    lines.append(f"count {len(node.gpus)}")
    for gpu in node.gpus:
        if gpu.error:
            lines += [f"{gpu.gpu}.uuid {gpu.uuid}", f"{gpu.gpu}.lost 15"]
            continue
        words = {
            "uuid": gpu.uuid, "name": gpu.name, "minor_number": gpu.minor_number, "pci_bus_id": gpu.pci_bus_id,
            **_words(gpu.raw), "gpm": int(any(key.startswith("gpm_") for key in _all_keys(gpu))),
        }  # fmt: skip
        for number, one in enumerate(gpu.instances):
            of_mig = {
                "uuid": one.uuid, "name": f"{gpu.name} MIG {one.profile}", "gi": one.gpu_instance,
                "ci": one.compute_instance, "slices": one.slices, **_words(one.raw),
            }  # fmt: skip
            words |= {f"mig.{number}.{key}": value for key, value in of_mig.items()}
        for number, process in enumerate(gpu.processes):
            numbers = (process.memory_bytes, process.sm_percent, process.gpu_instance)
            told = " ".join("-1" if value is None else f"{value:.0f}" for value in numbers)
            words[f"process.{number}"] = f"{process.pid} {process.kind} {told}"
        lines += [f"{gpu.gpu}.{key} {value}" for key, value in words.items()]
    return lines


def _all_keys(gpu: Reading) -> set[str]:
    return set(gpu.raw).union(*(one.raw for one in gpu.instances))


def _words(raw: Mapping[str, float]) -> dict[str, object]:
    """Values under the double's keys, which follow from others where a driver's do."""
    told: dict[str, object] = {}
    for key, value in raw.items():
        if key in ("nvlink_transmit", "nvlink_receive"):
            told[f"field_{138 if key == 'nvlink_transmit' else 139}"] = f"{value / 1024:.0f}"
        elif key not in ("memory_free", "processes:compute", "processes:graphics"):
            told[key] = f"{value:g}" if key.startswith("gpm_") else f"{value:.0f}"
    return told
