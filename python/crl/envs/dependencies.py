"""The simulator is an extra: say how to get it, and refuse releases known to be wrong."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from crl.errors import MissingExtraError

INSTALL = 'pip install "crl[train]"'


def require_simulator() -> None:
    """Check that gymnasium and a usable MuJoCo are installed, without importing them.

    Raises:
        MissingExtraError: an `ImportError`: a package is missing, or this MuJoCo cannot be used; it says what to do.
    """
    for package in ("gymnasium", "mujoco"):
        if find_spec(package) is None:
            raise MissingExtraError(f"environments need {package}, which is not installed: {INSTALL}", name=package)
    try:
        installed = version("mujoco")
    except PackageNotFoundError:  # an unpacked or vendored copy: nothing to compare
        return
    release = tuple(int(part) for part in installed.split(".")[:3] if part.isdigit())
    if release == (4, 0, 0):
        raise MissingExtraError(
            "mujoco 4.0.0 is refused: its Newton solver can diverge (mended in 4.0.1): "
            'pip install "mujoco>=3.17,!=4.0.0"',
            name="mujoco",
        )
    if release < (3, 17):
        raise MissingExtraError(
            f"mujoco {installed} has no mujoco.batch, which environments are built on: "
            'pip install "mujoco>=3.17,!=4.0.0"',
            name="mujoco",
        )
