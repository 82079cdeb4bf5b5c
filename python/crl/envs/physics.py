"""The only module that imports MuJoCo and its assets; imported when a model is built, not before."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from crl.envs.dependencies import INSTALL, require_simulator
from crl.envs.layouts import Maze

require_simulator()

import mujoco  # type: ignore[import-untyped]  # noqa: E402
from mujoco.batch import Batch  # type: ignore[import-untyped]  # noqa: E402

__all__ = [
    "BEHIND",
    "CURRENT",
    "DIVERGENCE_WARNINGS",
    "FLOOR",
    "LARGEST_VALUE",
    "WALL",
    "Batch",
    "add_slides",
    "add_wall",
    "compile_maze",
    "cpu_count",
    "load_asset",
    "mujoco",
    "set_contacts",
    "set_options",
    "wall_bits",
]

# MuJoCo answers each of these by silently putting the world back to its initial state.
DIVERGENCE_WARNINGS = [
    int(mujoco.mjtWarning.mjWARN_BADQPOS),
    int(mujoco.mjtWarning.mjWARN_BADQVEL),
    int(mujoco.mjtWarning.mjWARN_BADQACC),
]
# What a step leaves derived fields at: the state before its last physics step, or that after it.
BEHIND, CURRENT = mujoco.mjtStage.mjSTAGE_NONE, mujoco.mjtStage.mjSTAGE_VEL
FLOOR, WALL = 1, 2  # contact bits: what a geom of the `fast` robots stands on, and what stops it
NOBODY = 1 << 30  # a contact bit that no geom answers
LARGEST_VALUE = float(mujoco.mjMAXVAL)  # beyond it, at the next step


def load_asset(filename: str) -> Any:
    """Return the `MjSpec` of a robot that the installed gymnasium package ships."""
    package = find_spec("gymnasium")
    places = (package and package.submodule_search_locations) or []
    path = Path(*places[:1], "envs", "mujoco", "assets", filename)
    if not path.is_file():
        raise FileNotFoundError(f"the installed gymnasium has no {path}: {INSTALL}")
    return mujoco.MjSpec.from_file(os.fspath(path))


def set_options(spec: Any, fidelity: str) -> None:
    """`fast`: implicitfast, a quarter of RK4's cost, and no search for islands; `gymnasium`: what the asset says."""
    if fidelity == "fast":
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        # One robot is one island: the same bits, 4 % cheaper.
        spec.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_ISLAND


def wall_bits(fidelity: str) -> dict[str, int]:
    """Contact bits of a wall: in `fast` it touches the geoms with `WALL` in their contype, otherwise every geom."""
    return {"contype": 0, "conaffinity": WALL} if fidelity == "fast" else {"contype": 1, "conaffinity": 1}


def compile_maze(spec: Any, maze: Maze, fidelity: str = "gymnasium", boxes: int = 0) -> Any:
    """The model of a robot in a maze, whose walls are half a cell high.

    Where they are fewer than `boxes`, boxes that nothing can touch make up the number: mazes with as many make
    models of the same sizes, as `Task.build_worlds` needs.
    """
    cell = maze.cell
    for number in range(len(maze.walls()), boxes):
        # Inside the corner's wall. With no contact bit at all it would not be in the tree of bounding volumes, whose
        # size is one of those that must be the same.
        add_wall(spec, f"wall_{number}", (0.0, 0.0), (0.01, 0.01), 0.01, contype=NOBODY, conaffinity=0)
    for number, (top, bottom, left, right) in enumerate(maze.walls()):
        centre = 0.5 * (top + bottom) * cell, 0.5 * (left + right) * cell
        half_sizes = 0.5 * (bottom - top + 1) * cell, 0.5 * (right - left + 1) * cell
        add_wall(spec, f"wall_{number}", centre, half_sizes, 0.5 * cell, **wall_bits(fidelity))
    return spec.compile()


def add_wall(
    spec: Any,
    name: str,
    centre: tuple[float, float],
    half_sizes: tuple[float, float],
    height: float,
    *,
    contype: int,
    conaffinity: int,
) -> None:
    """Add a wall as a box of the world body, on the floor."""
    spec.worldbody.add_geom(
        name=name,
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=[*centre, 0.5 * height],
        size=[*half_sizes, 0.5 * height],
        contype=contype,
        conaffinity=conaffinity,
        rgba=[0.65, 0.6, 0.55, 1.0],
        material="",  # that of the robot's parts, by default, would hide the colour
    )


def add_slides(body: Any, axes: str, *, armature: float, damping: float = 0.0) -> None:
    """Let a body slide without limits along these of the axes x, y and z, in this order; kg, N s/m."""
    for axis in axes:
        body.add_joint(
            name=f"{body.name}_{axis}",
            type=mujoco.mjtJoint.mjJNT_SLIDE,
            axis=[float(axis == other) for other in "xyz"],
            armature=armature,
            damping=[damping, 0.0, 0.0],
            limited=mujoco.mjtLimited.mjLIMITED_FALSE,
        )


def set_contacts(geoms: Sequence[Any], *, contype: int, conaffinity: int) -> None:
    """Two geoms can touch where one's contype shares a bit with the other's conaffinity."""
    for geom in geoms:
        geom.contype, geom.conaffinity = contype, conaffinity


def cpu_count() -> int:
    """CPUs this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
