"""The engine: any `Task`, in many worlds, as a Gymnasium vector environment."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray

from crl.envs.physics import BEHIND, CURRENT, DIVERGENCE_WARNINGS, LARGEST_VALUE, Batch, cpu_count
from crl.envs.task import Task

Observation = dict[str, NDArray[Any]]
Info = dict[str, NDArray[Any]]
_WORD = (1 << 64) - 1
_WORLDS = 1  # beside the seed: the stream from which worlds that differ are made


class VectorEnv(gymnasium.vector.VectorEnv[Observation, NDArray[np.float32], NDArray[Any]]):
    """`num_envs` worlds of one task, stepped by one C++ thread pool without the GIL.

    Observations are dicts of float32 arrays, fresh at every call: `observation` (num_envs, observation_dim),
    `achieved_goal` and `desired_goal` (num_envs, goal_dim); of bytes where the task shows images, each a flat row.
    Actions are (num_envs, action_dim), clipped to [-1, 1].
    The reward is 1 where the state after the step is at the goal, else 0; an episode goes on at its goal.

    Autoreset is Gymnasium's `NEXT_STEP`: the step that ends an episode returns its last observation; the next step
    ignores that world's action and returns the first observation of a new episode, with reward 0. Every episode
    draws a fresh start and goal.

    `info` holds `success` (bool), `distance` (float32, to the goal) and `diverged` (bool), each (num_envs,). Where
    the physics diverged the episode is terminated with its last sound observation; `diverged_total` counts them. That
    of `reset` also holds `far` (bool), where the task knows goals that are far.

    Not to be used from several Python threads at once.

    Args:
        task: what to simulate.
        num_envs: worlds.
        seed: of starts and goals, until `reset` is given another; and, where worlds differ, of the worlds, for good.
        num_threads: physics threads; None for one per CPU. Results do not depend on it.

    Raises:
        ValueError: a size is not a positive integer.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": []}  # noqa: RUF012

    def __init__(self, task: Task, num_envs: int, *, seed: int = 0, num_threads: int | None = None) -> None:
        _check_size("num_envs", num_envs)
        if num_threads is not None:
            _check_size("num_threads", num_threads)
        self.task, self.env_spec = task, task.spec
        self.num_envs = int(num_envs)
        self.num_threads = min(int(num_threads or cpu_count()), self.num_envs)
        model = task.build_model()
        self.batch = Batch(model, num_envs, self.num_threads)
        for field in task.derived:
            self.batch.bind(field)
        self._world_seeds = np.empty(0, dtype=np.uint64)
        if task.differs_by_world:
            self._build_worlds(np.random.default_rng([seed, _WORLDS]).integers(_WORD, size=num_envs, dtype=np.uint64))
        controls = task.control(np.zeros((num_envs, self.env_spec.action_dim)), self.batch).shape
        if controls != (num_envs, model.nu):
            raise ValueError(f"{task.spec.name}: the model has {model.nu} actuators, control() returns {controls[1:]}")
        # A persistent batch would step on from these stages rather than compute them again, but then every world has
        # memory of its own to walk through: the humanoid costs 66 µs a step either way, and .2 MB more a world.
        self._stage = CURRENT if task.derived else BEHIND
        # The first row of a world's life: every field of the state that a start does not set.
        self._initial_state = self.batch.state[0].copy()
        state, shown = task.state_spec, _images if self.env_spec.image else _unbounded
        self._goal_indices = list(state.goal_indices)

        self.single_observation_space = Dict(
            {
                "observation": shown(self.env_spec.observation_dim),
                "achieved_goal": shown(self.env_spec.goal_dim),
                "desired_goal": shown(self.env_spec.goal_dim),
            }
        )
        self.single_action_space = Box(-1.0, 1.0, (self.env_spec.action_dim,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

        self.diverged_total = 0
        self._started = False
        self._done = np.zeros(num_envs, dtype=np.bool_)  # worlds that the next step resets
        self._steps = np.zeros(num_envs, dtype=np.int64)
        self._goal = np.zeros((num_envs, state.goal_dim), dtype=np.float32)
        self._observation = np.zeros((num_envs, state.observation_dim), dtype=np.float32)
        super().reset(seed=seed)

    @property
    def model(self) -> Any:
        """The `mujoco.MjModel` of every world; where worlds differ, `batch.get_model(world)` is that of one."""
        return self.batch.model

    @property
    def places(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Achieved and desired goals now, (num_envs, goal_dim) of `task.state_spec`: also where images are shown."""
        return self._observation[:, self._goal_indices], self._goal.copy()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, Info]:
        """Start a new episode in every world.

        Args:
            seed: restart the random numbers; None lets them run on.
            options: `{"goal": array}`, (goal_dim,) or (num_envs, goal_dim), commands these goals in place of drawn
                ones, for this episode; where images are shown, goals of `task.state_spec`.

        Raises:
            ValueError: an unknown option, or a goal of another shape or not finite; nothing has changed then.
        """
        self._check_open()
        commanded = self._checked_options(options or {})
        super().reset(seed=seed)
        self._begin(np.arange(self.num_envs))
        if commanded is not None:
            self._goal[:] = commanded
        self._started = True
        self._done = np.zeros(self.num_envs, dtype=np.bool_)
        self._observation = self._observe()
        observation, success, distance = self._evaluate()
        far = self.task.far(self._goal)
        info = {"success": success, "distance": distance, "diverged": np.zeros_like(success)}
        return observation, info if far is None else {**info, "far": far}

    def step(
        self, actions: ArrayLike
    ) -> tuple[Observation, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], Info]:
        """Advance every world by one control step; worlds whose episode has ended start the next one instead.

        Raises:
            ValueError: `actions` is not (num_envs, action_dim) or not finite.
            gymnasium.error.ResetNeeded: `reset` has not been called.
            gymnasium.error.ClosedEnvironmentError: `close` has.
        """
        self._check_open()
        if not self._started:
            raise gymnasium.error.ResetNeeded("call reset() before step()")
        new, previous = self._done, self._observation
        fresh = np.flatnonzero(new)
        self.batch.ctrl[:] = self.task.control(self._checked_actions(actions), self.batch)
        if len(fresh) < self.num_envs:
            running = np.flatnonzero(~new) if len(fresh) else None
            self.batch.step(running, nstep=self.env_spec.action_repeat, stage=self._stage)
        if len(fresh):
            self._begin(fresh)
        self._steps += ~new

        observation = self._observe()
        diverged = self._diverged(observation)
        if diverged.any():
            observation[diverged] = previous[diverged]
            self.diverged_total += int(diverged.sum())
        self._observation = observation

        result, success, distance = self._evaluate()
        success &= ~(new | diverged)
        terminated = (self.task.terminated(observation) & ~new) | diverged
        truncated = (self._steps >= self.env_spec.episode_length) & ~terminated
        self._done = terminated | truncated
        info = {"success": success, "distance": distance, "diverged": diverged}
        return result, success.astype(np.float64), terminated, truncated, info

    def _build_worlds(self, seeds: NDArray[np.uint64]) -> None:
        self.batch.set_models(self.task.build_worlds(seeds))
        self._world_seeds = seeds

    def _begin(self, worlds: NDArray[np.intp]) -> None:
        """Put these worlds at the first moment of a new episode."""
        start = self.task.start_in(self.np_random, worlds)
        self.batch.state[worlds] = self._initial_state  # the solver's warm start, time and controls too
        self.batch.qpos[worlds] = start.qpos
        self.batch.qvel[worlds] = start.qvel
        self._goal[worlds] = start.goal
        if self.task.derived:
            self.batch.forward(worlds, stage=CURRENT)
        self._steps[worlds] = 0

    def _observe(self) -> NDArray[np.float32]:
        with np.errstate(over="ignore", invalid="ignore"):  # `_diverged` judges what comes of it
            observation = self.task.observe(self.batch).astype(np.float32)
        if observation.shape != self._observation.shape:
            raise ValueError(
                f"{self.env_spec.name}: observe() must return {self._observation.shape}, as its spec says, "
                f"got {observation.shape}"
            )
        return observation

    def _diverged(self, observation: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Worlds that MuJoCo put back because they blew up, or that it will because they just have."""
        warnings = self.batch.warning[:, DIVERGENCE_WARNINGS, 1]
        diverged: NDArray[np.bool_] = warnings.any(axis=1) | ~(np.abs(observation) < LARGEST_VALUE).all(axis=1)
        if diverged.any():
            self.batch.warning[diverged] = 0
        return diverged

    def _evaluate(self) -> tuple[Observation, NDArray[np.bool_], NDArray[np.float32]]:
        """The observation for the caller, whether it is at the goal, and how far from it."""
        self._goal[:] = self.task.desired_goal(self._observation, self._goal)
        achieved, desired = self.places
        distance = self.task.distance(achieved, desired).astype(np.float32)
        observation: Observation = {
            "observation": self._observation.copy(),
            "achieved_goal": achieved,
            "desired_goal": desired,
        }
        if self.env_spec.image:
            state, goal = self.task.draw(self._observation, None), self.task.draw(None, desired)
            images = zip(observation, (state, state, goal), strict=True)
            observation = {name: image.reshape(self.num_envs, -1) for name, image in images}
        return observation, distance < self.env_spec.success_threshold, distance

    def _checked_actions(self, actions: ArrayLike) -> NDArray[np.floating[Any]]:
        array = np.asarray(actions)
        if array.shape != self.action_space.shape:
            raise ValueError(
                f"actions: expected shape {self.action_space.shape} (num_envs, action_dim), got {array.shape}"
            )
        if array.dtype.kind not in "fiu":
            raise ValueError(f"actions: expected numbers, got dtype {array.dtype}")
        finite = np.isfinite(array)
        if not finite.all():
            world, entry = np.argwhere(~finite)[0]
            raise ValueError(f"actions: must be finite, got {array[world, entry]} for world {world}, entry {entry}")
        clipped: NDArray[np.floating[Any]] = np.clip(array, -1.0, 1.0)
        return clipped

    def _checked_options(self, options: dict[str, Any]) -> NDArray[np.float32] | None:
        if strange := set(options) - {"goal"}:
            raise ValueError(f"options: the only key is 'goal', got {sorted(strange)}")
        if "goal" not in options:
            return None
        goal, dim = np.asarray(options["goal"], dtype=np.float32), self.task.state_spec.goal_dim
        if goal.shape not in ((dim,), (self.num_envs, dim)) or not np.isfinite(goal).all():
            raise ValueError(
                f"options['goal']: expected finite numbers of shape ({dim},) or ({self.num_envs}, {dim}), got {goal}"
            )
        return goal

    def _check_open(self) -> None:
        if self.closed:
            raise gymnasium.error.ClosedEnvironmentError("this environment has been closed; make a new one")

    def close_extras(self, **kwargs: Any) -> None:
        """Let go of the worlds and their threads."""
        self.__dict__.pop("batch", None)

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Everything that decides the future: physics, goals, episodes, random numbers; arrays only."""
        state = {
            "name": np.frombuffer(self.env_spec.name.encode(), dtype=np.uint8).copy(),
            "physics": self.batch.state.copy(),
            "goal": self._goal.copy(),
            "steps": self._steps.copy(),
            "done": self._done.copy(),
            "observation": self._observation.copy(),
            "rng": _pack_rng(self.np_random),
            "counters": np.array([self._started, self.diverged_total], dtype=np.int64),
        }
        return {**state, "world_seeds": self._world_seeds.copy()} if self.task.differs_by_world else state

    def load_state_dict(self, state: dict[str, NDArray[Any]]) -> None:
        """Continue from `state_dict()` of a VectorEnv of the same task and size, bit for bit.

        Raises:
            ValueError: an entry is missing, unknown or of another shape or dtype, or belongs to another environment;
                nothing has been changed then.
        """
        current = self.state_dict()
        if state.keys() != current.keys():
            raise ValueError(f"state: expected the entries {sorted(current)}, got {sorted(state)}")
        name = bytes(state["name"]).decode(errors="replace")
        if name != self.env_spec.name:
            raise ValueError(f"state: is of environment {name!r}, not {self.env_spec.name!r}")
        for key, expected in current.items():
            got = state[key]
            if got.shape != expected.shape or got.dtype != expected.dtype:
                raise ValueError(
                    f"state[{key!r}]: expected {expected.dtype} {expected.shape}, got {got.dtype} {got.shape}; "
                    "was it saved with another num_envs or MuJoCo?"
                )
        if self.task.differs_by_world and (state["world_seeds"] != self._world_seeds).any():
            self._build_worlds(state["world_seeds"].copy())
        self.batch.state[:] = state["physics"]
        self._goal, self._steps = state["goal"].copy(), state["steps"].copy()
        self._done, self._observation = state["done"].copy(), state["observation"].copy()
        self._started, self.diverged_total = bool(state["counters"][0]), int(state["counters"][1])
        self.np_random = _unpack_rng(state["rng"])


def _check_size(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")


def _images(size: int) -> Box:
    return Box(0, 255, (size,), np.uint8)


def _unbounded(size: int) -> Box:
    return Box(-np.inf, np.inf, (size,), np.float32)


def _pack_rng(rng: np.random.Generator) -> NDArray[np.uint64]:
    """PCG64's state as 6 words: state and increment (low, high), then the spare half draw."""
    full = rng.bit_generator.state
    state, increment = full["state"]["state"], full["state"]["inc"]
    words = [state & _WORD, state >> 64, increment & _WORD, increment >> 64, full["has_uint32"], full["uinteger"]]
    return np.array(words, dtype=np.uint64)


def _unpack_rng(words: NDArray[np.uint64]) -> np.random.Generator:
    low, high, inc_low, inc_high, has_spare, spare = (int(word) for word in words)
    generator = np.random.PCG64()
    generator.state = {
        "bit_generator": "PCG64",
        "state": {"state": low | high << 64, "inc": inc_low | inc_high << 64},
        "has_uint32": has_spare,
        "uinteger": spare,
    }
    return np.random.Generator(generator)
