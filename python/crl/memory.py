"""How much memory this process may still take."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

_FILES = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""Limit, use, and the entry of memory.stat that could be given back, by the controller that version 2 and 1 name."""


def free_memory(root: Path = Path("/")) -> int:
    """Bytes of RAM: what the system has available, and what the control groups of this process leave of it.

    Pages of files count as free, as the system gives them up when asked. `sys.maxsize` where nothing is known.
    """
    return max(0, min([*_available(root), *_left(root)], default=sys.maxsize))


def free_device_memory(device: str) -> int:
    """Bytes that CUDA device `device` has left, and those that PyTorch holds there without using them."""
    import torch

    free, _ = torch.cuda.mem_get_info(device)
    return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def resident_memory() -> int:
    """Bytes of this process that are in RAM; 0 where the system does not tell."""
    pages = _words(Path("/proc/self/statm"))[1:2]
    return int(pages[0]) * os.sysconf("SC_PAGE_SIZE") if pages else 0


def forget_peak() -> None:
    """Let `peak_resident_memory` begin again, where the system can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_resident_memory() -> int:
    """The most that `resident_memory` was since `forget_peak`, or ever; 0 where the system does not tell."""
    words = _words(Path("/proc/self/status"))
    return int(words[words.index("VmHWM:") + 1]) * 1024 if "VmHWM:" in words else 0


def _available(root: Path) -> Iterator[int]:
    words = _words(root / "proc/meminfo")
    if "MemAvailable:" in words:
        yield int(words[words.index("MemAvailable:") + 1]) * 1024


def _left(root: Path) -> Iterator[int]:
    """What is left of each limit that holds for this process: of its control group, and of all that this is within."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        version = "memory" if "memory" in controllers.split(",") else controllers
        if version not in _FILES:
            continue
        mount, group = root / "sys/fs/cgroup" / version, Path(path.lstrip("/"))
        limit_file, used_file, idle_entry = _FILES[version]
        for folder in (mount / group, *(mount / parent for parent in group.parents)):
            limit, used = _words(folder / limit_file), _words(folder / used_file)
            if not limit or not used or limit[0] == "max":
                continue
            statistics = _words(folder / "memory.stat")
            idle = int(statistics[statistics.index(idle_entry) + 1]) if idle_entry in statistics else 0
            yield int(limit[0]) - int(used[0]) + idle


def _words(path: Path) -> list[str]:
    return _text(path).split()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
