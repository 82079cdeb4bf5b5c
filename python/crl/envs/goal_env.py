"""Any Gymnasium environment with goals, behind the interface of our own worlds."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing import parent_process
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Space
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray

from crl.envs.spec import EnvSpec

KEYS = ("observation", "achieved_goal", "desired_goal")
SUCCESS_KEYS = ("is_success", "success")
"""Where an environment's `info` says that it is at its goal."""

MakeEnv = Callable[[], "gymnasium.Env[Any, Any]"]
Observation = dict[str, NDArray[Any]]
Info = dict[str, NDArray[Any]]
Seed = int | Sequence[int] | None


def describe(env: gymnasium.Env[Any, Any], name: str, *, success_threshold: float | None = None) -> EnvSpec:
    """The EnvSpec of an environment, which is reset and stepped once to see what it tells.

    Args:
        env: with a dict observation of `observation`, `achieved_goal` and `desired_goal`, all vectors or all images,
            and a bounded Box of actions.
        name: its name here.
        success_threshold: Euclidean distance within which it is at its goal, where neither its `info` nor an attribute
            `distance_threshold` says.

    Raises:
        ValueError: it is no such environment, has no time limit, or does not tell success.
    """

    # A maze has its robot as an environment within.
    within = [value for value in vars(env.unwrapped).values() if isinstance(value, gymnasium.Env)]

    def attribute(names: Sequence[str], default: Any) -> Any:
        told = (
            owner.get_wrapper_attr(name) for name in names for owner in (env, *within) if owner.has_wrapper_attr(name)
        )
        return next(told, default)

    sizes = _sizes(env.observation_space, env.action_space, name)
    if env.spec is None or not env.spec.max_episode_steps:
        raise ValueError(f"{name} has no time limit: give episode_length")
    env.reset(seed=0)
    shown, _, _, _, info = env.step(env.action_space.sample())
    key = next((key for key in SUCCESS_KEYS if key in info), None)
    threshold = float(success_threshold or attribute(["distance_threshold"], 0.0))
    image = sizes["image"]
    if image and not np.array_equal(shown["observation"], shown["achieved_goal"]):
        raise ValueError(f"{name}: an image's achieved_goal must be the observation, which is stored once")
    if image and (key is None or "distance" not in info):
        raise ValueError(
            f"{name} shows images, from which nobody tells how near it is to its goal: info must have distance and "
            f"{' or '.join(SUCCESS_KEYS)}"
        )
    if key is None and not threshold:
        raise ValueError(f"{name} does not tell when it is at its goal: give success_threshold")
    return EnvSpec(
        name=name,
        **sizes,
        goal_indices=(),
        episode_length=env.spec.max_episode_steps,
        success_threshold=threshold,
        action_repeat=int(attribute(["frame_skip", "n_substeps"], 1)),
        dt=float(attribute(["dt"], 1.0)),
        description=attribute(["summary"], "another project's environment"),
        observation=f"an image, {' x '.join(map(str, image))} bytes" if image else "as the environment shows it",
        start="as the environment draws it",
        goal=attribute(["goal_meaning"], "achieved_goal and desired_goal as the environment shows them"),
        success=f"info[{key!r}]" + f" (within {threshold:g})" * bool(threshold) if key else f"within {threshold:g}",
        terminates="as the environment says",
        source=attribute(["origin"], str(env.spec.entry_point)),
    )


def wrap(
    env: gymnasium.vector.VectorEnv[Any, Any, Any],
    *,
    episode_length: int | None = None,
    success_threshold: float | None = None,
) -> GoalVectorEnv:
    """Present a Gymnasium vector environment that is there already, in whichever of its modes it resets.

    Args:
        env: with a dict observation of `observation`, `achieved_goal` and `desired_goal`, and a bounded Box of actions.
        episode_length: steps; by default `max_episode_steps` of its spec or of its first world's.
        success_threshold: Euclidean distance within which a world is at its goal, where `info` does not say.

    Raises:
        ValueError: it is no such environment, or its time limit is not known.
    """
    known = env.spec or (env.get_attr("spec")[0] if hasattr(env, "get_attr") else None)
    name = known.id if known else type(env).__name__
    sizes = _sizes(env.single_observation_space, env.single_action_space, name)
    length = episode_length or (known.max_episode_steps if known else None)
    if not length:
        raise ValueError(f"{name} has no time limit that is known: give episode_length")
    spec = EnvSpec(
        name=name,
        **sizes,
        goal_indices=(),
        episode_length=length,
        success_threshold=success_threshold or 0.0,
        action_repeat=1,
        dt=1.0,
        success="as info says" if not success_threshold else "",
    )
    return GoalVectorEnv(env, spec)


def make(make_env: MakeEnv, spec: EnvSpec, num_envs: int, *, seed: int, workers: int) -> GoalVectorEnv | Workers:
    """`num_envs` worlds of `make_env` in `workers` processes, or in this one for 0. Results do not depend on it."""
    if workers == 0:
        return _share(make_env, spec, num_envs, seed)
    while num_envs % workers:  # processes of equal shares
        workers -= 1
    return Workers(partial(_share, make_env, spec, num_envs // workers, seed), spec, workers, seed)


class _Goals(gymnasium.vector.VectorEnv[Observation, NDArray[np.float32], NDArray[Any]]):
    """What both classes below are from outside: the spaces of `spec`."""

    def __init__(self, spec: EnvSpec, num_envs: int, seed: int | None, mode: AutoresetMode) -> None:
        self.env_spec, self.num_envs, self._seed = spec, num_envs, seed
        self.metadata = {"autoreset_mode": mode, "render_modes": []}
        low, high, dtype = (0, 255, np.uint8) if spec.image else (-np.inf, np.inf, np.float32)
        goal, observation = (Box(low, high, (dim,), dtype) for dim in (spec.goal_dim, spec.observation_dim))
        self.single_observation_space = Dict(observation=observation, achieved_goal=goal, desired_goal=goal)
        self.single_action_space = Box(-1.0, 1.0, (spec.action_dim,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.diverged_total = 0

    def _take_seed(self, seed: Seed) -> Seed:
        """`seed`, or at the first reset the one that was given when this was made."""
        first, self._seed = self._seed, None
        return first if seed is None else seed


class GoalVectorEnv(_Goals):
    """A Gymnasium vector environment with goals, as `crl.envs.VectorEnv` presents ours.

    Observations are dicts of float32 arrays: `observation` (num_envs, observation_dim), `achieved_goal` and
    `desired_goal` (num_envs, goal_dim); of bytes where the environment shows images, each a flat row. Actions are
    (num_envs, action_dim) in [-1, 1], clipped, and rescaled to the bounds of the environment's own. The reward is 1
    where the state after the step is at the goal, else 0.

    `info` holds `success` (bool), `distance` (float32; the Euclidean one to the goal, unless the environment's `info`
    has one) and `diverged` (bool, never true: nobody tells), each (num_envs,), of the step just made.

    NEXT_STEP environments stay so. Under SAME_STEP and DISABLED, where worlds ended, the step returns the first
    observations of their next episodes, `info["final_obs"]` (num_envs,) has the last ones of those that ended, each a
    dict of arrays, and `metadata` says SAME_STEP.

    The state of these worlds cannot be saved, so there is no `state_dict`: whoever goes on, starts new episodes.
    """

    def __init__(
        self, env: gymnasium.vector.VectorEnv[Any, Any, Any], spec: EnvSpec, *, seed: int | None = None
    ) -> None:
        mode = env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        super().__init__(
            spec,
            env.num_envs,
            seed,
            mode if mode == AutoresetMode.NEXT_STEP else AutoresetMode.SAME_STEP,
        )
        self.env, self._mode = env, mode
        box = env.single_action_space
        assert isinstance(box, Box)  # `_sizes` has seen to it
        self._middle, self._half = (box.high + box.low) / 2, (box.high - box.low) / 2
        self._done = np.zeros(self.num_envs, dtype=np.bool_)  # worlds that the next step resets

    def reset(self, *, seed: Seed = None, options: dict[str, Any] | None = None) -> tuple[Observation, Info]:
        """Start a new episode in every world.

        Args:
            seed: of all worlds together, or one for each; None lets random numbers run on.
            options: those of the environment. Goals cannot be commanded.

        Raises:
            ValueError: options name a goal.
        """
        if options and "goal" in options:
            raise ValueError(f"{self.env_spec.name} draws its own goals: options['goal'] cannot be commanded here")
        seed = self._take_seed(seed)
        if isinstance(seed, int) and isinstance(self.env.unwrapped, SyncVectorEnv | AsyncVectorEnv):
            seed = spread(seed, self.num_envs)  # theirs would be seed, seed + 1, …: those of the next run but one
        shown, info = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]
        self._done = np.zeros(self.num_envs, dtype=np.bool_)
        observation = self._rows(shown)
        told: _Told = [(info, ~self._done)]
        return observation, self._judged(observation, told, told, untold_is_error=False)

    def step(
        self, actions: ArrayLike
    ) -> tuple[Observation, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], Info]:
        """Advance every world by one step, as the class says.

        Raises:
            ValueError: `actions` is not (num_envs, action_dim) or not finite, or `info` does not tell success and there
                is no threshold.
        """
        array = np.asarray(actions, dtype=np.float32)
        if array.shape != self.action_space.shape or not np.isfinite(array).all():
            raise ValueError(f"actions: expected finite numbers of shape {self.action_space.shape}, got {array}")
        action = self._middle + self._half * np.clip(array, -1.0, 1.0)
        fresh = self._done
        shown, _, terminated, truncated, info = self.env.step(action.astype(self.env.action_space.dtype))
        terminated, truncated = np.asarray(terminated, np.bool_), np.asarray(truncated, np.bool_)
        observation, ended = self._rows(shown), terminated | truncated
        final, extra = observation, {}
        told: _Told = [(info, ~fresh)]
        far: _Told = [(info, np.ones_like(fresh))]  # a reset may tell how far its goal is
        if self._mode == AutoresetMode.NEXT_STEP:
            self._done = ended
        elif ended.any():
            # `final` becomes what the step led to, in all worlds; `observation` what the next action is chosen by.
            if self._mode == AutoresetMode.DISABLED:
                observation = self._rows(self.env.reset(options={"reset_mask": ended.copy()})[0])
            else:
                final = {key: array.copy() for key, array in observation.items()}
                for world in np.flatnonzero(ended):
                    for key in KEYS:
                        final[key][world] = np.ravel(info["final_obs"][world][key])
                told = far = [(info, ~ended), (info.get("final_info", {}), ended)]
            finals = np.full(self.num_envs, None, dtype=object)
            finals[ended] = [{key: final[key][world] for key in KEYS} for world in np.flatnonzero(ended)]
            extra = {"final_obs": finals}
        judged = self._judged(final, told, far)
        judged["success"] &= ~fresh
        return observation, judged["success"].astype(np.float64), terminated, truncated, judged | extra

    def _judged(self, shown: Observation, told: _Told, far: _Told, *, untold_is_error: bool = True) -> Info:
        """How near the goal the worlds are that show this: of success an `info` has `told` the worlds beside it, of
        distances `far`.
        """
        distance, of = self._stated(far, ("distance",))
        if self.env_spec.image:
            distance[~of] = np.nan  # images do not say
        else:
            difference = shown["achieved_goal"] - shown["desired_goal"]
            distance = np.where(of, distance, np.sqrt(np.square(difference).sum(axis=1)))
        distance = distance.astype(np.float32)
        stated, of = self._stated(told, SUCCESS_KEYS)
        threshold = self.env_spec.success_threshold
        if untold_is_error and not threshold and any((where & ~of).any() for _, where in told):
            raise ValueError(
                f"{self.env_spec.name}: info has neither {' nor '.join(SUCCESS_KEYS)}: give success_threshold"
            )
        success = np.where(of, stated.astype(np.bool_), distance < threshold)
        return {"success": success, "distance": distance, "diverged": np.zeros_like(success)}

    def _rows(self, shown: Mapping[str, NDArray[Any]]) -> Observation:
        """A fresh array (num_envs, size) under each of KEYS."""
        dtype = np.uint8 if self.env_spec.image else np.float32
        return {key: np.array(shown[key], dtype=dtype).reshape(len(shown[key]), -1) for key in KEYS}

    def _stated(self, told: _Told, keys: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """What is told under the first of `keys`, and of which worlds."""
        values, of = np.zeros(self.num_envs), np.zeros(self.num_envs, dtype=np.bool_)
        for info, where in told:
            key = next((key for key in keys if key in info), None)
            if key is not None:
                there = where & info.get(f"_{key}", where)
                values[there] = np.asarray(info[key], dtype=np.float64)[there]
                of |= there
        return values, of

    def close_extras(self, **kwargs: Any) -> None:
        """Close the environment."""
        self.env.close()


class Workers(_Goals):
    """Worlds in processes, each process with several: `GoalVectorEnv` from outside, in mode NEXT_STEP.

    Gymnasium's AsyncVectorEnv has a process for each of its environments, so each of these is a `_Share`.

    Args:
        make_share: makes the `GoalVectorEnv` of one process.
        spec: what each world is.
        workers: processes.
        seed: of the first reset.
    """

    def __init__(self, make_share: Callable[[], GoalVectorEnv], spec: EnvSpec, workers: int, seed: int) -> None:
        # Not forked: the learner's threads may hold locks. What resets the worlds is within the shares.
        self.shares = AsyncVectorEnv(
            [partial(_Share, make_share)] * workers, autoreset_mode=AutoresetMode.DISABLED, context="forkserver"
        )
        shape = self.shares.action_space.shape
        assert shape is not None
        super().__init__(spec, workers * shape[1], seed, AutoresetMode.NEXT_STEP)

    def reset(self, *, seed: Seed = None, options: dict[str, Any] | None = None) -> tuple[Observation, Info]:
        """As `GoalVectorEnv.reset`."""
        seed = self._take_seed(seed)
        if seed is not None:
            seed = spread(seed, self.num_envs) if isinstance(seed, int) else list(seed)
        shares = self.shares.num_envs
        size = self.num_envs // shares
        seeds = [None if seed is None else seed[n * size : (n + 1) * size] for n in range(shares)]
        shown, info = self.shares.reset(seed=seeds, options=options)  # type: ignore[arg-type]
        return self._joined(shown), self._joined({key: info[key] for key in ("success", "distance", "diverged")})

    def step(
        self, actions: ArrayLike
    ) -> tuple[Observation, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], Info]:
        """As `GoalVectorEnv.step`."""
        action = np.asarray(actions, dtype=np.float32)
        if action.shape != self.action_space.shape:
            raise ValueError(f"actions: expected finite numbers of shape {self.action_space.shape}, got {action}")
        shown, reward, terminated, truncated, info = self.shares.step(action.reshape(self.shares.action_space.shape))
        told = self._joined({key: info[key] for key in ("success", "distance", "diverged")})
        return self._joined(shown), reward.ravel(), terminated.ravel(), truncated.ravel(), told

    def _joined(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Arrays of the shares [processes, worlds, ...] as arrays [num_envs, ...]."""
        return {key: array.reshape(self.num_envs, *array.shape[2:]) for key, array in arrays.items()}

    def close_extras(self, **kwargs: Any) -> None:
        """End the processes."""
        self.shares.close()


class _Share(gymnasium.Env[Observation, NDArray[np.float32]]):
    """The worlds of one process as a single environment: its rewards and ends are arrays, one entry a world."""

    def __init__(self, make_share: Callable[[], GoalVectorEnv]) -> None:
        if parent_process() is not None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the learner, which then saves and closes us
        self.share = make_share()
        self.observation_space, self.action_space = self.share.observation_space, self.share.action_space

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Observation, Info]:
        return self.share.reset(seed=seed, options=options)

    def step(self, action: NDArray[np.float32]) -> Any:
        return self.share.step(action)

    def close(self) -> None:
        self.share.close()


_Told = list[tuple[Mapping[str, Any], NDArray[np.bool_]]]


def spread(seed: int, count: int) -> list[int]:
    """`count` seeds from one, unlike those of any other."""
    return [int(word) for word in np.random.SeedSequence(seed).generate_state(count)]


def _share(make_env: MakeEnv, spec: EnvSpec, num_envs: int, seed: int) -> GoalVectorEnv:
    return GoalVectorEnv(SyncVectorEnv([make_env] * num_envs), spec, seed=seed)


def _sizes(observation: Space[Any], action: Space[Any], name: str) -> dict[str, Any]:
    """The sizes in an EnvSpec, of spaces that are as we need them."""
    if not isinstance(observation, Dict) or not all(isinstance(observation.spaces.get(key), Box) for key in KEYS):
        raise ValueError(f"{name} is no goal environment: it must show a dict of {', '.join(KEYS)}, has {observation}")
    boxes = [observation[key] for key in KEYS]
    image = boxes[0].shape if all(box.dtype == np.uint8 and len(box.shape or ()) == 3 for box in boxes) else None
    if any(box.shape != image if image else len(box.shape or ()) != 1 for box in boxes):
        raise ValueError(f"{name}: {', '.join(KEYS)} must be vectors, or images alike in bytes, has {observation}")
    if not isinstance(action, Box) or not (np.isfinite(action.low) & np.isfinite(action.high)).all():
        raise ValueError(f"{name}: its actions must be a Box with bounds, has {action}")
    shown, achieved, desired = (gymnasium.spaces.flatdim(observation[key]) for key in KEYS)
    if achieved != desired:
        raise ValueError(f"{name}: achieved_goal has {achieved} entries, desired_goal {desired}: they must be alike")
    actions = gymnasium.spaces.flatdim(action)
    return {"observation_dim": shown, "action_dim": actions, "goal_dim": achieved, "image": image}
