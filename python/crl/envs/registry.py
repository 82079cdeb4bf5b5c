"""Names to tasks: those of this package, those registered by a program, those of installed entry points."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from crl.envs.ant import Ant, AntMaze
from crl.envs.ant_objects import BALL_LAYOUTS, AntBall, AntBallMaze, AntPush
from crl.envs.arms import SCENES, ArmBinpickEef, ArmCube, ArmGrasp, ArmReach
from crl.envs.half_cheetah import HalfCheetah
from crl.envs.humanoid import Humanoid, HumanoidMaze
from crl.envs.layouts import LAYOUTS, is_layout
from crl.envs.pictures import PointMazeImages, PointRoomsImages
from crl.envs.point import PointMaze
from crl.envs.point_rooms import PointRooms
from crl.envs.pusher import FIELDS, Pusher, PusherReacher
from crl.envs.random_mazes import AntRandomMaze, HumanoidRandomMaze, PointRandomMaze
from crl.envs.reacher import Reacher
from crl.envs.task import Task
from crl.errors import ConfigError, nearest

TaskFactory = Callable[..., Task]

ENTRY_POINT_GROUP = "crl.envs"


class UnknownEnvironmentError(ConfigError):
    """No environment has this name. A `ValueError`."""


_factories: dict[str, TaskFactory] = {}
_aliases: dict[str, str] = {}


def register(name: str, factory: TaskFactory, *, aliases: Iterable[str] = ()) -> None:
    """Make an environment available under `name`.

    Args:
        name: letters, digits and underscores.
        factory: called with the keyword options of `make` and `spec`; returns a `Task`. A `Task` class will do.
            Its keyword-only parameters are the options it accepts.
        aliases: further names for it.

    Raises:
        ValueError: a name is malformed or taken.
    """
    for new in (name, *aliases):
        if not new.isidentifier():
            raise ValueError(f"name must be letters, digits and underscores, got {new!r}")
        if new in _factories or new in _aliases:
            raise ValueError(f"environment {new!r} is already registered; choose another name")
    _factories[name] = factory
    _aliases.update(dict.fromkeys(aliases, name))


def names() -> list[str]:
    """Canonical names of all environments, in order of registration; those of entry points last."""
    return [*_factories, *(name for name in _entry_points() if name not in _factories)]


def aliases() -> dict[str, str]:
    """Further names, each with the canonical one it means."""
    return dict(_aliases)


def create(name: str, options: dict[str, Any]) -> Task:
    """Build the task called `name`.

    Raises:
        UnknownEnvironmentError: there is none; the message names the nearest.
        ValueError: it does not take one of the options, or its factory does not return a `Task` of that name.
    """
    factory = _find(name)
    accepted = [
        parameter.name
        for parameter in inspect.signature(factory).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    for option in options:
        if option not in accepted:
            listing = ", ".join(sorted(accepted)) or "no options"
            raise ValueError(
                f"environment {name!r} has no option {option!r}; it takes: {listing}.{nearest(option, accepted)}"
            )
    task = factory(**options)
    if not isinstance(task, Task):
        raise ValueError(f"environment {name!r}: its factory must return a crl.envs.Task, got {type(task).__name__}")
    if task.spec.name != _aliases.get(name, name):
        raise ValueError(f"environment {name!r}: its spec must bear that name, got {task.spec.name!r}")
    return task


def _find(name: str) -> TaskFactory:
    canonical = _aliases.get(name, name)
    if canonical in _factories:
        return _factories[canonical]
    installed = _entry_points()
    if canonical in installed:
        return _load(installed[canonical])
    if factory := _by_rule(name):
        return factory
    hint = nearest(name, [*names(), *_aliases])
    raise UnknownEnvironmentError(f"there is no environment {name!r}.{hint or ' `crl envs` lists all.'}")


def _by_rule(name: str) -> TaskFactory | None:
    """Names too many to register: a robot in a layout that is made by rule, such as `ant_u_maze_gen_1f2f`."""
    robot, _, rest = name.partition("_")
    base, _, suffix = rest.partition("_maze")
    if robot in MAZE_TASKS and rest != base and is_layout(base + suffix):
        return partial(MAZE_TASKS[robot], name, base + suffix)
    return None


def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def _load(point: EntryPoint) -> TaskFactory:
    factory = point.load()
    if not callable(factory):
        raise ValueError(
            f"entry point {point.name!r} = {point.value!r} of group {ENTRY_POINT_GROUP!r} must name a Task class or "
            f"a function that returns a Task, got {type(factory).__name__}"
        )
    return factory  # type: ignore[no-any-return]


register("reacher", Reacher)
register("half_cheetah", HalfCheetah, aliases=["cheetah"])
for _field in FIELDS:
    register(_field, partial(Pusher, _field), aliases=["pusher"] if _field == "pusher_easy" else [])
register("pusher_reacher", PusherReacher)
register("ant", Ant)
register("ant_random_start", partial(Ant, "ant_random_start", True))
register("ant_ball", AntBall)
for _layout in BALL_LAYOUTS:
    _name = f"ant_ball_{_layout}_maze"
    register(_name, partial(AntBallMaze, _name, _layout), aliases=["ant_ball_maze"] if _layout == "u" else [])
register("ant_push", AntPush)
register("humanoid", Humanoid)
register("arm_reach", ArmReach)
register("arm_grasp", ArmGrasp)
for _scene in SCENES:
    register(_scene, partial(ArmCube, _scene))
register("arm_binpick_easy_eef", ArmBinpickEef, aliases=["arm_binpick_easy_EEF"])

MAZE_TASKS: dict[str, TaskFactory] = {"ant": AntMaze, "humanoid": HumanoidMaze, "point": PointMaze}
"""Robots that any layout can be put around: called with the environment's name and a layout's."""

# Other layouts of the humanoid are there by rule.
_LISTED = {"humanoid": ("u", "u_eval", "big", "big_eval", "hardest", "hardest_eval")}
for _robot, _task in MAZE_TASKS.items():
    for _layout in _LISTED.get(_robot, (*LAYOUTS, "hardest_eval")):
        _maze, _suffix = _layout.partition("_")[::2]
        _name = f"{_robot}_{_maze}_maze" + (f"_{_suffix}" if _suffix else "")
        _also = {"u": [f"{_robot}_maze"], "u_eval": [f"{_robot}_maze_eval"]}.get(_layout, [])
        if _robot == "point" and _layout in ("u", "big", "hardest"):
            _also.append(_name.replace("point", "simple"))  # its name in JaxGCRL
        register(_name, partial(_task, _name, _layout), aliases=_also)
for _name, _layout, _farthest in (("point_spiral_11x11", "spiral_11x11", 54), ("point_nine_rooms", "nine_rooms", 28)):
    register(_name, partial(PointRooms, _name, _layout))
    register(f"{_name}_eval", partial(PointRooms, f"{_name}_eval", f"{_layout}_eval"))
    _single = f"{_name}_single_eval"
    register(_single, partial(PointRooms, _single, f"{_layout}_eval_{_farthest}f"))
for _name, _task in (
    ("ant_random_maze", AntRandomMaze),
    ("humanoid_random_maze", HumanoidRandomMaze),
    ("point_random_maze", PointRandomMaze),
):
    register(_name, partial(_task, _name))
    register(f"{_name}_eval", partial(_task, f"{_name}_eval", True))
for _name, _layout, _task in (
    ("point_u_maze", "u", PointMazeImages),
    ("point_spiral_11x11", "spiral_11x11", PointRoomsImages),
    ("point_nine_rooms", "nine_rooms", PointRoomsImages),
):
    for _suffix in ("", "_eval"):
        register(f"{_name}{_suffix}_image", partial(_task, f"{_name}{_suffix}_image", _layout + _suffix))
