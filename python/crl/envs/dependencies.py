"""The simulator is an extra: say how to get it, and refuse releases known to be wrong."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

INSTALL = 'pip install "crl[train]"'


def require_simulator() -> None:
    """Check that gymnasium and a usable MuJoCo are installed, without importing them.

    Raises:
        ImportError: a package is missing, or this MuJoCo cannot be used; the message says what to install.
    """
    for package in ("gymnasium", "mujoco"):
        if find_spec(package) is None:
            raise ImportError(f"environments need {package}, which is not installed: {INSTALL}", name=package)
    try:
        installed = version("mujoco")
    except PackageNotFoundError:  # an unpacked or vendored copy: nothing to compare
        return
    release = tuple(int(part) for part in installed.split(".")[:3] if part.isdigit())
    if release == (4, 0, 0):
        raise ImportError(
            "mujoco 4.0.0 is refused: its Newton solver can diverge (mended in 4.0.1): "
            'pip install "mujoco>=3.17,!=4.0.0"',
            name="mujoco",
        )
    if release < (3, 17):
        raise ImportError(
            f"mujoco {installed} has no mujoco.batch, which environments are built on: "
            'pip install "mujoco>=3.17,!=4.0.0"',
            name="mujoco",
        )
