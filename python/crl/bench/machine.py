"""What was measured on."""

import importlib.metadata
import os
import platform
from pathlib import Path

VERSIONS = ("crl", "numpy", "numba", "cpprb", "stable-baselines3", "torchrl", "flashbax", "jax", "torch")


def machine_facts() -> dict[str, str]:
    """Processor, system and versions, each under its heading."""
    versions = []
    for name in VERSIONS:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "system": platform.platform(),
        "Python": platform.python_version(),
        "versions": ", ".join(versions),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
