"""Policy -> worlds -> buffer: the one place where experience is made."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crl.commands import Commands


class UniformPolicy:
    """Acts uniformly at random in [-1, 1]; a round of prefill has one of its own, seeded by where the run is.

    Args:
        action_dim: A.
        seed: a sequence of integers, for example the run's seed and its env steps.
    """

    def __init__(self, action_dim: int, seed: Sequence[int]) -> None:
        self._action_dim, self._random = action_dim, np.random.default_rng(seed)

    def act(self, observation: NDArray[Any], goal: NDArray[Any], deterministic: bool = False) -> Tensor:
        """Actions [N, A] for observation [N, O]; goal and `deterministic` make no difference."""
        uniform = self._random.random((len(observation), self._action_dim), dtype=np.float32)
        return torch.from_numpy(2 * uniform - 1)


class Collector:
    """Steps vector environment `env` with `policy` and stores every moment in `buffer`.

    Under Gymnasium's NEXT_STEP autoreset each world shows exactly one observation per step: the last one of an
    episode, and one step later (the action being ignored) the first of the next. So every step is one row per world,
    terminal observations included, and one boolean per row says where trajectories start. Under SAME_STEP a step that
    ends an episode shows two, the last one in `info["final_obs"]`: it becomes a row of its own.

    Beside what is shown a row may keep, as the buffer's columns, `desired_goal`, the goal that its action was for, and
    `terminal`, whether the episode ended there of itself: a time limit is no such end.

    Args:
        env: a `crl.envs` VectorEnv or GoalVectorEnv of N worlds.
        policy: has `act(observation, goal) -> action tensor [N, A]`; may be replaced between calls.
        buffer: a TrajectoryBuffer of N lanes.
        seed: of the first reset.
        commands: the goals that the policy is told; default: the environment's.
        stores: which of `desired_goal` and `terminal` the buffer has.
    """

    def __init__(
        self,
        env: Any,
        policy: Any,
        buffer: Any,
        *,
        seed: int,
        commands: Commands | None = None,
        stores: Sequence[str] = (),
    ) -> None:
        self.env, self.policy, self.buffer, self._seed, self._stores = env, policy, buffer, seed, stores
        self._commands = commands or Commands("env", buffer)
        self._observation, _ = env.reset(seed=seed)
        self._episode_start = np.ones(env.num_envs, dtype=bool)
        self._done = np.zeros(env.num_envs, dtype=bool)
        self._terminal = np.zeros(env.num_envs, dtype=bool)

    def collect(self, num_steps: int) -> int:
        """Make `num_steps` steps in every world; returns the env steps made, N * num_steps."""
        for _ in range(num_steps):
            shown = self._observation
            goal = self._commands.goals(shown["desired_goal"], self._episode_start)
            action = self.policy.act(shown["observation"], goal).cpu().numpy()
            rows = self._rows(shown, action, goal, self._terminal)
            self.buffer.add(**rows, episode_start=self._episode_start)
            self._observation, _, terminated, truncated, info = self.env.step(action)
            ended = terminated | truncated
            if "final_obs" in info:
                self._store_final(info["final_obs"], np.flatnonzero(ended), action, goal, terminated)
                self._episode_start, self._done = ended, np.zeros_like(ended)
                self._terminal = np.zeros_like(ended)
            else:
                self._episode_start, self._done, self._terminal = self._done, ended, terminated
        return num_steps * int(self.env.num_envs)

    def _rows(self, shown: Mapping[str, Any], action: Any, goal: Any, terminal: Any) -> dict[str, Any]:
        """What is stored of a moment. Images are their own achieved goals, and stored once."""
        further = {"desired_goal": goal, "terminal": terminal}
        rows = {"observation": shown["observation"], "action": action, **{name: further[name] for name in self._stores}}
        return rows if self.env.env_spec.image else {**rows, "achieved_goal": shown["achieved_goal"]}

    def _store_final(
        self,
        shown: NDArray[Any],
        worlds: NDArray[np.intp],
        action: NDArray[Any],
        goal: NDArray[Any],
        terminated: NDArray[np.bool_],
    ) -> None:
        """Store the last observations of the episodes that ended in `worlds`; no action was taken there."""
        for world in worlds:
            with self.buffer.writer(world, world + 1) as writer:
                rows = self._rows(shown[world], action[world], goal[world], terminated[world])
                writer.add(
                    **{name: row[None] for name, row in rows.items()},
                    episode_start=np.zeros(1, dtype=bool),
                )

    @property
    def resumable(self) -> bool:
        """Whether the worlds have a state that can be saved; those of other projects have none."""
        return hasattr(self.env, "state_dict")

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Arrays from which collecting goes on bit for bit: the worlds', and what they last showed."""
        if not self.resumable:
            return {}
        # In C order: safetensors writes an array's memory as it lies, and an env may show columns of another array.
        shown = {f"shown.{name}": np.ascontiguousarray(array) for name, array in self._observation.items()}
        worlds = {f"env.{name}": array for name, array in self.env.state_dict().items()}
        commands = {f"command.{name}": array for name, array in self._commands.state_dict().items()}
        ends = {"episode_start": self._episode_start, "done": self._done, "terminal": self._terminal}
        return {**shown, **worlds, **commands, **ends}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore what `state_dict` returned. Worlds that are not `resumable` begin new episodes, unlike the former."""
        if not self.resumable:
            seed = np.random.SeedSequence([self._seed, self.buffer.rows_written]).generate_state(1)[0]
            self._observation, _ = self.env.reset(seed=int(seed))
            self._episode_start = np.ones(self.env.num_envs, dtype=bool)
            self._done = np.zeros(self.env.num_envs, dtype=bool)
            self._terminal = np.zeros(self.env.num_envs, dtype=bool)
            return

        def part(prefix: str) -> dict[str, NDArray[Any]]:
            return {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}

        self.env.load_state_dict(part("env."))
        self._commands.load_state_dict(part("command."))
        self._observation = part("shown.")
        self._episode_start, self._done = state["episode_start"], state["done"]
        self._terminal = state.get("terminal", np.zeros_like(self._done))  # a checkpoint from before has none
