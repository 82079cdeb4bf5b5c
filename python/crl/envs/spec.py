"""What an environment is, as far as a learner has to know."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def of_places(difference: Any) -> tuple[Any, ...]:
    """The distance between two places: (N, goal_dim) -> one error (N,), array or tensor as given."""
    return ((difference**2).sum(-1) ** 0.5,)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvSpec:
    """The sizes and rules of one environment; needs no simulator.

    Attributes:
        name: canonical name, aliases resolved.
        observation_dim: entries of `observation` (the goal is not part of it).
        action_dim: entries of an action; every one lies in [-1, 1].
        goal_dim: entries of `achieved_goal` and `desired_goal`.
        goal_indices: the entries of `observation` that are the achieved goal; empty where it is no part of it.
        episode_length: steps after which an episode is truncated.
        success_threshold: an episode is at its goal where `Task.distance` is below this; m, unless
            `success` says otherwise. 0 where the environment judges by other means, which `success` then names.
        action_repeat: physics steps per control step.
        dt: seconds per control step; 1 where an environment of another project does not say.
        errors: what is wrong in each row, of achieved less desired goals (N, goal_dim): one or more errors (N,), the
            largest of which is the distance. Written with what arrays and tensors have in common, as learners judge
            other goals than those that were commanded, on their device.
        image: height, width and channels where observations and goals are images, given row by row as bytes; the
            whole observation is then the achieved goal, and `goal_indices` is empty.
        description: one line for a person.
        observation: what the entries of `observation` are.
        start: where episodes start.
        goal: what the achieved goal is, and how goals are drawn.
        success: when an episode is at its goal; by default, within the threshold.
        terminates: when an episode ends before its time.
        source: the publication or code whose numbers are followed.
    """

    name: str
    observation_dim: int
    action_dim: int
    goal_dim: int
    goal_indices: tuple[int, ...]
    episode_length: int
    success_threshold: float
    action_repeat: int
    dt: float
    errors: Callable[[Any], tuple[Any, ...]] = of_places
    image: tuple[int, int, int] | None = None
    description: str = ""
    observation: str = ""
    start: str = ""
    goal: str = ""
    success: str = ""
    terminates: str = "never"
    source: str = ""

    def __post_init__(self) -> None:
        if not self.success and self.success_threshold:
            object.__setattr__(self, "success", f"within {self.success_threshold:g} m")
        for field in ("observation_dim", "action_dim", "goal_dim", "episode_length", "action_repeat"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{self.name}: {field} must be a positive integer, got {value!r}")
        for field in ("success_threshold", "dt"):
            value = getattr(self, field)
            none = field == "success_threshold" and value == 0 and self.success
            if not (0 < value < float("inf") or none):
                raise ValueError(f"{self.name}: {field} must be positive, got {value!r}")
        if self.goal_indices and len(self.goal_indices) != self.goal_dim:
            raise ValueError(
                f"{self.name}: goal_indices must have goal_dim = {self.goal_dim} entries, got {self.goal_indices}"
            )
        pixels = math.prod(self.image or (self.observation_dim,))
        if pixels != self.observation_dim or (self.image and self.goal_dim != pixels):
            raise ValueError(
                f"{self.name}: with images of {self.image}, observation_dim and goal_dim must be {pixels}, got "
                f"{self.observation_dim} and {self.goal_dim}"
            )
        if not all(0 <= i < self.observation_dim for i in self.goal_indices):
            raise ValueError(
                f"{self.name}: goal_indices must lie in 0..{self.observation_dim - 1}, got {self.goal_indices}"
            )

    def reached(self, achieved_goal: Any, desired_goal: Any) -> Any:
        """(N,) bool, whether each row is at its goal: arrays or tensors (N, goal_dim), of states and not of images."""
        errors = self.errors(achieved_goal - desired_goal)
        return functools.reduce(operator.and_, (error < self.success_threshold for error in errors))

    def facts(self) -> dict[str, str]:
        """All of it but name and description, in words, each under its heading: what `crl envs NAME` prints."""
        indices = ", ".join(map(str, self.goal_indices))
        place = f" ({indices} of the observation)" if self.goal_indices else ""

        def told(count: int, more: str) -> str:
            return f"{count} {'entry' if count == 1 else 'entries'}{more}"

        return {
            "observation": told(self.observation_dim, f"; {self.observation}" if self.observation else ""),
            "action": told(self.action_dim, " in [-1, 1]"),
            "goal": told(self.goal_dim, place + (f"; {self.goal}" if self.goal else "")),
            "success": self.success,
            "start": self.start or "not said",
            "episode": f"{self.episode_length:,} steps of {self.dt:g} s, {self.action_repeat} of the physics each",
            "ends early": self.terminates,
            "follows": self.source or "no publication",
        }
