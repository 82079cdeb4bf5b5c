"""Packages of goal environments that need help: to be registered, mended, or given goals. Imports them where used."""

from __future__ import annotations

import contextlib
import io
import types
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict
from numpy.typing import NDArray

from crl.envs.registry import UnknownEnvironmentError
from crl.errors import MissingExtraError, nearest

INSTALL = 'pip install "crl[robotics]"'
ROBOTICS = ("Fetch", "Hand", "PointMaze", "AntMaze", "FrankaKitchen", "Adroit", "Mujoco")
"""How the names of gymnasium-robotics begin."""
DATASETS = ("navigate", "stitch", "explore", "play", "noisy")
"""In the middle of the names of OGBench's datasets, and not in those of their environments."""

IMAGE = "_image"
"""Behind the names of environments that are seen by a camera."""

Shown = dict[str, NDArray[np.float64]]


def gymnasium_env(name: str, **options: Any) -> gymnasium.Env[Any, Any]:
    """`gymnasium.make`, gymnasium-robotics registered where it is installed.

    Args:
        name: an id; with a module before it, as in "my_package:MyEnv-v0", that is imported first; with "_image" after
            it, the same seen by a camera, where `crl.envs.robot_images` says what is seen.
        options: those of `gymnasium.make` and of the environment.

    Raises:
        UnknownEnvironmentError: there is no such id; the message names the nearest.
        MissingExtraError: it is one of gymnasium-robotics, which is not installed.
    """
    if name.endswith(IMAGE):
        return _fetch_images(name.removesuffix(IMAGE), **options)
    if name.startswith(ROBOTICS) and not _register_robotics() and name not in gymnasium.registry:
        raise MissingExtraError(f"gymnasium:{name} needs gymnasium-robotics, which is not installed: {INSTALL}")
    module, _, identifier = name.rpartition(":")
    try:
        if module:
            import_module(module)
        gymnasium.spec(identifier)
    except ModuleNotFoundError as error:
        raise UnknownEnvironmentError(f"gymnasium:{name}: there is no module {error.name!r}") from None
    except gymnasium.error.Error:  # no such name, version or namespace, or no version given
        _register_robotics()
        hint = nearest(identifier, gymnasium.registry)
        raise UnknownEnvironmentError(f"gymnasium has no environment {identifier!r}.{hint}") from None
    return gymnasium.make(identifier, disable_env_checker=True, **options)


def _fetch_images(name: str, **options: Any) -> gymnasium.Env[Any, Any]:
    """One of `robot_images.FETCH`, named with its version."""
    from crl.envs.robot_images import FETCH

    robot = name.partition("-v")[0]
    if robot not in FETCH:
        known = [f"{task}-v4{IMAGE}" for task in FETCH]
        raise UnknownEnvironmentError(
            f"gymnasium:{name} has no images; these have: {', '.join(known)}.{nearest(name + IMAGE, known)}"
        )
    limit = options.pop("max_episode_steps", 50)
    return _limited(f"{name}{IMAGE}", lambda: FETCH[robot](gymnasium_env(name, **options).unwrapped), limit)


def _limited(name: str, make: Callable[..., gymnasium.Env[Any, Any]], steps: int) -> gymnasium.Env[Any, Any]:
    """What `make` makes, under that name, ended after so many steps."""
    spec = gymnasium.envs.registration.EnvSpec(name, entry_point=make, max_episode_steps=steps)
    return gymnasium.make(spec, disable_env_checker=True)


def ogbench_env(name: str, **options: Any) -> gymnasium.Env[Any, Any]:
    """An environment of OGBench as a goal environment: see `OGBenchGoals`.

    Args:
        name: an id such as "antmaze-medium-v0", or a dataset of it such as "antmaze-medium-navigate-v0".
        options: those of `gymnasium.make` and of the environment; here episodes go on at their goal by default.

    Raises:
        UnknownEnvironmentError: there is no such id; the message names the nearest.
        MissingExtraError: ogbench is not installed.
    """
    if not find_spec("ogbench"):
        raise MissingExtraError(f"ogbench:{name} needs ogbench, which is not installed: {INSTALL}", name="ogbench")
    import_module("ogbench")
    known = [
        key
        for key, spec in gymnasium.registry.items()
        if str(spec.entry_point).startswith(("ogbench.locomaze", "ogbench.manipspace"))
        and not key.startswith("visual-")
        and "singletask" not in key
    ]
    identifier = "-".join(word for word in name.split("-") if word not in DATASETS)
    if identifier not in known:
        raise UnknownEnvironmentError(f"ogbench has no state environment with goals {name!r}.{nearest(name, known)}")
    options = {"terminate_at_goal": False, **options}
    return OGBenchGoals(gymnasium.make(identifier, disable_env_checker=True, use_oracle_rep=True, **options))


class OGBenchGoals(gymnasium.Env[Shown, Any]):
    """The goal of OGBench's own evaluation, in its oracle representation, beside what the environment shows.

    That is the agent's or the ball's x, y in mazes, scaled positions of the blocks (and the states of buttons, drawer
    and window) on the table, the states of the buttons in puzzles. Each episode is one of the environment's tasks,
    drawn uniformly, or `options={"task_id": i}`.

    OGBench draws from NumPy's global generator; here that is seeded for the length of a reset, so that seeds hold.
    """

    summary = "OGBench's environment, its evaluation tasks as goals"
    goal_meaning = "OGBench's oracle representation; one of its evaluation tasks, each as likely"

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        self.env, self.spec, self.action_space = env, env.spec, env.action_space
        self._world = cast(Any, env.unwrapped)
        shown, info = self._reset(0, {})
        goal = Box(-np.inf, np.inf, info["goal"].shape, np.float64)
        self.observation_space: gymnasium.Space[Any] = Dict(
            observation=Box(-np.inf, np.inf, shown.shape, np.float64), achieved_goal=goal, desired_goal=goal
        )
        table = hasattr(self._world, "control_timestep")
        self.dt = float(self._world.control_timestep() if table else self._world.dt)
        self.frame_skip = self._world._n_steps if table else self._world.frame_skip

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Shown, dict[str, Any]]:
        super().reset(seed=seed)
        task = {"task_id": int(self.np_random.integers(self._world.num_tasks)) + 1}
        observation, info = self._reset(int(self.np_random.integers(2**32)), {**task, **(options or {})})
        self._goal = np.asarray(info["goal"], dtype=np.float64)
        return self._shown(observation), {}

    def step(self, action: Any) -> tuple[Shown, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._shown(observation), reward, terminated, truncated, {"success": bool(info["success"])}

    def close(self) -> None:
        self.env.close()

    def _reset(self, seed: int, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        with global_random(seed):
            self.env.action_space.seed(seed)
            return self.env.reset(seed=seed, options=options)

    def _shown(self, observation: Any) -> Shown:
        if hasattr(self._world, "compute_oracle_observation"):
            achieved = self._world.compute_oracle_observation()
        elif hasattr(self._world, "get_agent_ball_xy"):
            achieved = self._world.get_agent_ball_xy()[1]
        else:
            achieved = self._world.get_xy()
        return {"observation": observation, "achieved_goal": np.array(achieved), "desired_goal": self._goal}


SAWYER = ("reach", "push", "pick-place", "bin-picking", "box-close", "peg-insert-side")
"""Meta-World's tasks whose success is that the hand, or one object, is at a place."""


def metaworld_env(name: str, *, max_episode_steps: int = 150, **options: Any) -> gymnasium.Env[Any, Any]:
    """A task of Meta-World as a goal environment: see `SawyerGoals`, and `robot_images` for those seen by a camera.

    Args:
        name: one of SAWYER, "-v3" after it or not; with "_image" after it, one of `robot_images.SAWYER`.
        max_episode_steps: steps of an episode, at most 500; by default as published for these tasks.
        options: of the task's class.

    Raises:
        UnknownEnvironmentError: it is none of these.
        MissingExtraError: metaworld is not installed.
    """
    from crl.envs import robot_images

    seen = name.endswith(IMAGE)
    task, tasks = name.removesuffix(IMAGE).removesuffix("-v3"), tuple(robot_images.SAWYER) if seen else SAWYER
    if task not in tasks:
        known = [f"{known}{IMAGE}" if seen else known for known in tasks]
        raise UnknownEnvironmentError(
            f"metaworld:{name} is no goal task; these are: {', '.join(known)}.{nearest(name, known)}"
        )
    if not find_spec("metaworld"):
        raise MissingExtraError(
            f"metaworld:{name} needs metaworld, which asks for another MuJoCo than ours: "
            "pip install scipy imageio && pip install --no-deps metaworld",
            name="metaworld",
        )
    if not 1 <= max_episode_steps <= 500:
        raise ValueError(f"metaworld:{name}: episode_length must be 1 to 500, got {max_episode_steps}")
    if seen:
        return _limited(name, lambda: robot_images.SAWYER[task](_sawyer(task, options)), max_episode_steps)
    return _limited(f"{task}-v3", lambda: SawyerGoals(task, options), max_episode_steps)


def _sawyer(task: str, options: dict[str, Any]) -> Any:
    """Meta-World's environment, which draws anew in every episode and shows all of its state."""
    _mend_metaworld()
    world = import_module("metaworld.env_dict").ALL_V3_ENVIRONMENTS[f"{task}-v3"](**options)
    world._partially_observable, world._set_task_called = False, True
    world._freeze_rand_vec, world.seeded_rand_vec = False, True
    return world


class SawyerGoals(gymnasium.Env[Shown, Any]):
    """A task of Meta-World with a fresh start and goal each episode, as in contrastive RL's publications.

    The goal fixes hand, opening of the gripper and object, as published (for "reach", the hand alone): the object at
    Meta-World's target, the hand .03 m above it (for the peg, .13 m beside), the gripper at .4. Success is Meta-World's
    own, `info["distance"]` that of the object (of the hand) to its target.
    """

    metadata = {"render_modes": []}  # noqa: RUF012
    summary = "Meta-World's Sawyer arm"
    origin = "Meta-World, goals as in SGCRL"
    goal_meaning = "hand x, y, z, gripper opening, object x, y, z (reach: hand alone); target drawn by Meta-World"

    def __init__(self, task: str, options: dict[str, Any]) -> None:
        self._task, self._world = task, _sawyer(task, options)
        world = self._world
        self.dt, self.frame_skip = float(world.dt), int(world.frame_skip)
        self.action_space = world.action_space
        goal = Box(-np.inf, np.inf, (3 if task == "reach" else 7,), np.float64)
        self.observation_space: gymnasium.Space[Any] = Dict(
            observation=Box(-np.inf, np.inf, (18,), np.float64), achieved_goal=goal, desired_goal=goal
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Shown, dict[str, Any]]:
        super().reset(seed=seed)
        # Meta-World takes its seed apart from its reset, which draws from NumPy's generator too.
        draw = int(self.np_random.integers(2**32))
        self._world.seed(draw)
        with global_random(draw):
            observation = self._world.reset()[0]
        return self._shown(observation), self._told()

    def step(self, action: Any) -> tuple[Shown, Any, bool, bool, dict[str, Any]]:
        observation, reward, _, _, info = self._world.step(action)
        return self._shown(observation), reward, False, False, {"success": bool(info["success"]), **self._told()}

    def close(self) -> None:
        self._world.close()

    def _place(self) -> NDArray[np.float64]:
        """Where that is which is to be at the target."""
        if self._task == "reach":
            place = self._world.tcp_center
        elif self._task == "peg-insert-side":
            place = self._world._get_site_pos("pegHead")
        else:
            place = self._world._get_pos_objects()
        return np.array(place, dtype=np.float64)

    def _told(self) -> dict[str, Any]:
        return {"distance": float(np.linalg.norm(self._place() - self._world._target_pos))}

    def _shown(self, observation: NDArray[np.float64]) -> Shown:
        target = np.array(self._world._target_pos, dtype=np.float64)
        achieved, desired = self._place(), target
        if self._task != "reach":
            hand = target + ([0.13, 0.0, 0.03] if self._task == "peg-insert-side" else [0.0, 0.0, 0.03])
            achieved = np.concatenate((observation[:4], achieved))
            desired = np.concatenate((hand, [0.4], target))
        return {"observation": observation[:18], "achieved_goal": achieved, "desired_goal": desired}


def _register_robotics() -> bool:
    """Register gymnasium-robotics if it is installed, and mend what its 1.4.2 cannot do with MuJoCo from 3.12 on.

    There a joint's type is a NumPy integer, which equals a member of mjtJoint but is not found in a tuple of them: the
    Fetch, Hand and Kitchen robots fail at an assertion. With plain numbers in place of the members all is as before.
    """
    if not find_spec("gymnasium_robotics"):
        return False
    with contextlib.redirect_stderr(io.StringIO()):  # it advises everybody on the versions of one hand's tasks
        gymnasium.register_envs(import_module("gymnasium_robotics"))
    utils: Any = import_module("gymnasium_robotics.utils.mujoco_utils")
    if isinstance(utils.mujoco, types.ModuleType):
        numbers = {name: int(member) for name, member in utils.mujoco.mjtJoint.__members__.items()}
        utils.mujoco = types.SimpleNamespace(**{**vars(utils.mujoco), "mjtJoint": types.SimpleNamespace(**numbers)})
    return True


def _mend_metaworld() -> None:
    """Let Meta-World 3.1.1, made for MuJoCo 3.3.0, run with ours.

    It writes whole rows of `eq_data`, of which MuJoCo has made longer ones since; the first 11 entries mean the same.
    """
    base = import_module("metaworld.sawyer_xyz_env").SawyerMocapBase

    def reset_mocap_welds(self: Any) -> None:
        import mujoco  # type: ignore[import-untyped]

        weld = self.model.eq_type == int(mujoco.mjtEq.mjEQ_WELD)
        self.model.eq_data[weld, :11] = [0, 0, 0, 0, 0, 0, -1, 0, 0, 0, 5]

    base.reset_mocap_welds = reset_mocap_welds


@contextlib.contextmanager
def global_random(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator, and put it back afterwards."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
