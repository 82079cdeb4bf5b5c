"""The libraries that are compared, each as its documentation uses it, with goals relabelled as it does by itself.

None draws the truncated geometric law. Those for HER draw goals uniformly from the rest of the trajectory, and deliver
the next observation and a reward as well. Modules are imported by name: no type checker needs them. OGBench's
data set class and JaxGCRL's queue are in no package, and so not here.
"""

import importlib
import importlib.util
import time
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np

from crl.bench.samplers import Draw, Sampler
from crl.bench.workloads import CHUNK, EPISODE, GAMMA, Array, History

WINDOW = 128
"""Rows of a window that Flashbax samples; the first half are the batch's rows, and their goals lie in the rest."""


def _episodes(history: History) -> Any:
    """(env, first row, row after the last) of every trajectory."""
    starts = range(0, history.steps, EPISODE)
    return ((env, first, first + EPISODE) for env in range(history.num_envs) for first in starts)


class Peer(Sampler):
    """A library, filled as its documentation says."""

    def __init__(self, history: History) -> None:
        filling = self.fill(history)
        next(filling)  # Imports and compiles.
        begun = time.process_time()
        rows = sum(filling)
        self.added = rows / (time.process_time() - begun)
        """Rows taken in a second of processor time."""

    @abstractmethod
    def fill(self, history: History) -> Iterator[int]:
        """Adds everything, and yields the number of rows of each call."""


class Cpprb(Peer):
    """cpprb's HindsightReplayBuffer: goals are drawn when a trajectory ends, and sampling is a plain gather."""

    name = "cpprb HER"
    module = "cpprb"
    memory = 5.0  # Every row with its own goal and with one drawn, and the next observation with each.
    images = False  # A goal must be a function of the observation.

    def fill(self, history: History) -> Iterator[int]:
        cpprb = importlib.import_module("cpprb")
        goal_dim = history.workload.goal
        columns = {
            "obs": {"shape": history.workload.observation},
            "act": {"shape": history.workload.action},
            "next_obs": {"shape": history.workload.observation},
        }
        self.buffer = cpprb.HindsightReplayBuffer(
            2 * history.rows,
            columns,
            EPISODE,
            lambda state, action, goal: np.zeros((len(state), 1), np.float32),
            goal_func=lambda state: state[..., :goal_dim],
            goal_shape=goal_dim,
            additional_goals=1,
            prioritized=False,
        )
        for env, first, last in _episodes(history):
            observation = history.observation[env, first:last]
            action = history.action[env, first : last - 1]
            self.buffer.add(obs=observation[:-1], act=action, next_obs=observation[1:])
            self.buffer.on_episode_end(observation[-1, :goal_dim])
            yield len(action)

    def prepare(self, batch_size: int) -> Draw:
        def draw() -> tuple[Array, Array, Array]:
            batch = self.buffer.sample(batch_size)
            return batch["obs"], batch["act"], batch["goal"]

        return draw


class StableBaselines3(Peer):
    """Stable-Baselines3's HerReplayBuffer, four of five goals relabelled."""

    name = "Stable-Baselines3 HER"
    module = "stable_baselines3"
    memory = 2.5

    def fill(self, history: History) -> Iterator[int]:
        her = importlib.import_module("stable_baselines3.her.her_replay_buffer")
        spaces = importlib.import_module("gymnasium.spaces")
        importlib.import_module("torch").set_num_threads(1)
        workload, num_envs = history.workload, history.num_envs
        goals = spaces.Box(-np.inf, np.inf, (workload.goal,))
        pixels = np.dtype(workload.dtype) == np.uint8
        low, high = (0, 255) if pixels else (-np.inf, np.inf)
        observation = spaces.Box(low, high, workload.observation, dtype=workload.dtype)
        space = spaces.Dict(observation=observation, achieved_goal=goals, desired_goal=goals)
        actions = spaces.Box(-np.inf, np.inf, (workload.action,))
        self.buffer = her.HerReplayBuffer(history.rows, space, actions, _Rewards(), device="cpu", n_envs=num_envs)
        infos: list[dict[str, Any]] = [{} for _ in range(num_envs)]
        rewards = np.zeros(num_envs, np.float32)

        def shown(t: int) -> dict[str, Array]:
            goal = history.goal[:, t]
            return {"observation": history.observation[:, t], "achieved_goal": goal, "desired_goal": goal}

        for t in range(history.steps - 1):
            if (t + 1) % EPISODE:
                done = np.full(num_envs, (t + 2) % EPISODE == 0)
                self.buffer.add(shown(t), shown(t + 1), history.action[:, t], rewards, done, infos)
                yield num_envs

    def prepare(self, batch_size: int) -> Draw:
        def draw() -> tuple[Any, Any, Any]:
            batch = self.buffer.sample(batch_size)
            return batch.observations["observation"], batch.actions, batch.observations["desired_goal"]

        return draw


class _Rewards:
    """As much of a vector environment as relabelling asks for."""

    def env_method(self, name: str, achieved: Array, desired: Array, infos: Any, indices: Any) -> list[Array]:
        return [np.zeros(len(achieved), np.float32)]


class TorchRL(Peer):
    """TorchRL's HERReplayBuffer, every goal relabelled."""

    name = "TorchRL HER"
    module = "torchrl"
    memory = 2.5

    def fill(self, history: History) -> Iterator[int]:
        torch = importlib.import_module("torch")
        data = importlib.import_module("torchrl.data")
        tensordict = importlib.import_module("tensordict").TensorDict
        torch.set_num_threads(1)
        self.buffer = data.HERReplayBuffer(
            lambda batch: torch.zeros(*batch.batch_size, 1),
            her_ratio=1.0,
            storage=data.LazyTensorStorage(history.rows),
        )
        done = torch.zeros(EPISODE - 1, 1, dtype=torch.bool)
        done[-1] = True
        for env, first, last in _episodes(history):
            observation = torch.from_numpy(history.observation[env, first:last])
            goal = torch.from_numpy(history.goal[env, first:last])
            following = {
                "observation": observation[1:],
                "reward": torch.zeros(EPISODE - 1, 1),
                "done": done,
                "terminated": torch.zeros_like(done),
            }
            row = {
                "observation": observation[:-1],
                "action": torch.from_numpy(history.action[env, first : last - 1]),
                "achieved_goal": goal[:-1],
                "desired_goal": goal[:-1],
                "next": following,
            }
            self.buffer.extend(tensordict(row, batch_size=[EPISODE - 1]))
            yield EPISODE - 1

    def prepare(self, batch_size: int) -> Draw:
        def draw() -> tuple[Any, Any, Any]:
            batch = self.buffer.sample(batch_size)
            return batch["observation"], batch["action"], batch["desired_goal"]

        return draw


class Flashbax(Peer):
    """Flashbax's trajectory buffer, compiled: windows of consecutive rows, and goals drawn within them.

    It does not know where trajectories end, so goals may lie in the next one. A batch of B is B / 64 windows.
    """

    name = "Flashbax windows"
    module = "flashbax"
    memory = 2.0

    def fill(self, history: History) -> Iterator[int]:
        self.jax = importlib.import_module("jax")
        self.steps = history.steps
        self.num_envs = history.num_envs
        row = {"observation": history.observation, "action": history.action, "goal": history.goal}
        buffer = self._buffer(1)
        self.state = buffer.init({name: self.jax.numpy.asarray(column[0, 0]) for name, column in row.items()})
        add = self.jax.jit(buffer.add, donate_argnums=0)
        for first in range(0, history.steps, CHUNK):
            self.state = add(self.state, {name: column[:, first : first + CHUNK] for name, column in row.items()})
            self.jax.block_until_ready(self.state)
            yield history.num_envs * CHUNK

    def _buffer(self, windows: int) -> Any:
        return importlib.import_module("flashbax").make_trajectory_buffer(
            add_batch_size=self.num_envs,
            sample_batch_size=windows,
            sample_sequence_length=WINDOW,
            period=1,
            min_length_time_axis=WINDOW,
            max_length_time_axis=self.steps,
        )

    def prepare(self, batch_size: int) -> Draw:
        jax, half = self.jax, WINDOW // 2
        windows = max(1, batch_size // half)
        buffer = self._buffer(windows)

        def sample(state: Any, key: Any) -> Any:
            key, to_rows, to_goals = jax.random.split(key, 3)
            rows = buffer.sample(state, to_rows).experience
            draws = jax.random.geometric(to_goals, 1 - GAMMA, (windows, half))
            goal_at = jax.numpy.arange(half) + jax.numpy.minimum(draws, half)
            goal = jax.numpy.take_along_axis(rows["goal"], goal_at[..., None], axis=1)
            picked = (rows["observation"][:, :half], rows["action"][:, :half], goal)
            return key, tuple(x.reshape(windows * half, *x.shape[2:]) for x in picked)

        compiled = jax.jit(sample)
        key = jax.random.key(0)

        def draw() -> tuple[Any, Any, Any]:
            nonlocal key
            key, batch = compiled(self.state, key)
            observation, action, goal = jax.block_until_ready(batch)
            return observation, action, goal

        return draw


PEERS: tuple[type[Peer], ...] = (Cpprb, Flashbax, StableBaselines3, TorchRL)


def installed(sampler: type[Sampler]) -> bool:
    """Whether the module that a sampler needs can be found."""
    return importlib.util.find_spec(sampler.module) is not None
