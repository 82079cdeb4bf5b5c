"""Acting: the actor and what scores its actions, in which precision they compute, and actions from one set of weights.

Letters: N rows to act on, K candidates, O observation, G goal, A action, R representation.
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from crl.graphs import Captured
from crl.inputs import Inputs
from crl.networks import Actor, build_network, squash
from crl.ranks import ALONE, Ranks

Array = Tensor | NDArray[Any]


class Spec(Protocol):
    """The sizes of an environment that the agent needs; and `image`, the shape, where it shows images."""

    @property
    def observation_dim(self) -> int: ...
    @property
    def goal_dim(self) -> int: ...
    @property
    def action_dim(self) -> int: ...
    def reached(self, achieved_goal: Any, desired_goal: Any) -> Any:
        """(N,) bool, whether each row is at its goal: arrays or tensors (N, G)."""


class Config(Protocol):
    """The settings the agent reads; `crl.TrainConfig`, once resolved, has them all."""

    @property
    def seed(self) -> int: ...
    @property
    def actor_depth(self) -> int: ...
    @property
    def critic_depth(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def representation_dim(self) -> int: ...
    @property
    def network(self) -> str: ...
    @property
    def normalize_observations(self) -> bool: ...
    @property
    def input_bias(self) -> float: ...
    @property
    def fourier_features(self) -> int: ...
    @property
    def fourier_scale(self) -> float: ...
    @property
    def image_encoder(self) -> str: ...
    @property
    def crop_padding(self) -> int: ...
    @property
    def residual_scale(self) -> str: ...
    @property
    def recompute(self) -> bool: ...
    @property
    def compile(self) -> bool: ...
    @property
    def graphs(self) -> bool: ...
    @property
    def block_metrics(self) -> bool: ...
    @property
    def algorithm(self) -> str: ...
    @property
    def num_critics(self) -> int: ...
    @property
    def critic_value(self) -> str: ...
    @property
    def energy(self) -> str: ...
    @property
    def energy_scale(self) -> str: ...
    @property
    def objective(self) -> str: ...
    @property
    def commanded_negatives(self) -> float: ...
    @property
    def logsumexp_penalty(self) -> float: ...
    @property
    def gamma(self) -> float: ...
    @property
    def commanded_share(self) -> float: ...
    @property
    def exploration_noise(self) -> float: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def actor_goals(self) -> str: ...
    @property
    def bc_coefficient(self) -> float: ...
    @property
    def bc_form(self) -> str: ...
    @property
    def initial_alpha(self) -> float: ...
    @property
    def actor_ema(self) -> float: ...
    @property
    def target_entropy_scale(self) -> float: ...
    @property
    def precision(self) -> str: ...
    @property
    def num_action_candidates(self) -> int: ...


class Networks(nn.Module):
    """The actor; algorithms add their critics. All the weights that acting and learning share."""

    def __init__(self, spec: Spec, config: Config, generator: torch.Generator) -> None:
        super().__init__()
        o, g, a = spec.observation_dim, spec.goal_dim, spec.action_dim
        self.image: tuple[int, int, int] | None = getattr(spec, "image", None)
        """Height, width and channels, where observations and goals are images."""
        self._network, self._width, self._depth = config.network, config.width, config.critic_depth
        self._options: dict[str, Any] = {
            "image": self.image,
            "encoder": config.image_encoder,
            "fourier": (config.fourier_features, config.fourier_scale),
            "input_bias": config.input_bias,
            "scaled": config.residual_scale == "depth",
            "recompute": config.recompute,
            "compile": config.compile,
        }
        self.actor = Actor(
            *(o, g, a, config.width, config.actor_depth, config.network),
            generator=generator,
            **self._options,
        )
        self.inputs = Inputs(o, g, self.image, config.normalize_observations)

    def build(self, in_dim: int, out_dim: int, generator: torch.Generator, images: int = 1) -> nn.Module:
        """A network of the critic's depth, (B, in_dim) -> (B, out_dim), whose input begins with so many images."""
        sizes = in_dim, out_dim, self._width, self._depth
        return build_network(self._network, *sizes, generator, images=images, **self._options)

    def explore(self, mean: Tensor, log_std: Tensor, noise: Tensor) -> Tensor:
        """The actions to collect with, of the actor's outputs and standard normal noise, (..., A) each."""
        return squash(mean, log_std, noise)[0]

    def score(self, observation: Tensor, goal: Tensor, action: Tensor) -> Tensor:
        """How good each candidate is: (N, O), (N, G), (N, K, A) -> (N, K), in float32."""
        raise TypeError(f"{type(self).__name__} has no critic to choose among {action.shape[1]} candidates by")

    def represent_goal(self, goal: Tensor) -> Tensor | None:
        """psi of goals as the networks see them, (N, G) -> (N, R); None where there is no such representation."""
        return None


class Numerics:
    """Where and in which precision things are computed; arrays on their way to the device."""

    def __init__(self, device: torch.device, precision: str) -> None:
        if precision not in ("float32", "tf32", "bf16"):
            raise ValueError(f"precision must be one of float32, tf32, bf16, got {precision!r}")
        self.device = device
        self.precision = precision

    def network_precision(self) -> torch.autocast:
        """Context of every network call; energies, log-probabilities and losses stay outside of it, in float32.

        float32 and tf32 choose how CUDA multiplies float32 matrices (a setting of the process, other devices always
        multiply in full); bf16 autocasts, over float32 weights.
        """
        if self.device.type == "cuda":
            torch.backends.cuda.matmul.fp32_precision = "tf32" if self.precision == "tf32" else "ieee"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def rows(self, name: str, array: Array, dim: int) -> Tensor:
        """`array` as a float32 tensor (rows, dim) on the device."""
        if array.ndim != 2 or array.shape[1] != dim:
            raise ValueError(f"{name} must have shape (rows, {dim}), got {tuple(array.shape)}")
        return self.column(array)

    def column(self, array: Array) -> Tensor:
        """`array` (rows, ...) as a float32 tensor on the device."""
        if not isinstance(array, Tensor):
            # Images travel as the bytes they are.
            dtype = np.uint8 if array.dtype == np.uint8 else np.float32
            array = torch.from_numpy(np.ascontiguousarray(array, dtype=dtype))
        return array.to(self.device, torch.float32, non_blocking=True)


class Policy:
    """Actions from one set of weights: the agent's own, or a copy that another thread acts on.

    Made by `Agent.policy()`. A copy keeps its weights until `refresh()`, whatever the learner does meanwhile.
    """

    def __init__(
        self,
        networks: Networks,
        spec: Spec,
        config: Config,
        numerics: Numerics,
        generator: torch.Generator,
        refresh: Callable[[Networks], None] | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self._networks = networks
        self._spec = spec
        self._num_candidates = config.num_action_candidates
        self._numerics = numerics
        self._generator = generator
        self._refresh = refresh
        self._ranks = ranks
        self._captured_mode, self._captured_sample = (
            Captured("acting", numerics.device, wanted=config.graphs, generators=[generator]) for _ in range(2)
        )

    @torch.no_grad()
    def act(self, observation: Array, goal: Array, deterministic: bool = False) -> Tensor:
        """The actions to take: observation (N, O), goal (N, G), NumPy or torch -> (N, A) in [-1, 1] on the device.

        One candidate: a sample of the policy, or its mode where `deterministic`. K > 1 candidates: K samples, of which
        the critic's favourite is taken; candidates are sampled even where `deterministic`, as best-of-K is published.
        Every call draws fresh noise from the acting generator, never torch's global one.

        Raises:
            ValueError: an argument is not (N, dim), or the two differ in N.
        """
        o = self._numerics.rows("observation", observation, self._spec.observation_dim)
        g = self._numerics.rows("goal", goal, self._spec.goal_dim)
        check_same_rows(observation=o, goal=g)
        o, g = self._networks.inputs.of_observation(o), self._networks.inputs.of_goal(g)
        if deterministic and self._num_candidates == 1:
            return self._captured_mode(self._mode, o, g)
        return self._captured_sample(self._sample, o, g)

    def _mode(self, o: Tensor, g: Tensor) -> Tensor:
        with self._numerics.network_precision():
            mean, _ = self._networks.actor(o, g)
        return torch.tanh(mean)

    def _sample(self, o: Tensor, g: Tensor) -> Tensor:
        with self._numerics.network_precision():
            mean, log_std = self._networks.actor(o, g)
        k, n = self._num_candidates, len(o)
        # The noise of all ranks, so that their generators stay the same.
        noise = torch.randn((self._ranks.size * n, k, mean.shape[-1]), generator=self._generator, device=mean.device)
        noise = self._ranks.own(noise)
        action = self._networks.explore(mean[:, None], log_std[:, None], noise)
        if k == 1:
            return action[:, 0]
        with self._numerics.network_precision():
            score = self._networks.score(o, g, action)
        return action[torch.arange(n, device=action.device), score.argmax(1)]

    @torch.no_grad()
    def goal_representation(self, goal: Array) -> Tensor | None:
        """psi(g), of the first critic where there are two: goal (N, G), NumPy or torch -> (N, R) float32 on the device.

        None where the algorithm has no such representation. Raises ValueError where the goal is not (N, G).
        """
        g = self._networks.inputs.of_goal(self._numerics.rows("goal", goal, self._spec.goal_dim))
        with self._numerics.network_precision():
            psi = self._networks.represent_goal(g)
        return None if psi is None else psi.float()

    def refresh(self) -> None:
        """Copy the learner's present weights. Safe beside a running `update`: never half of one update's step."""
        if self._refresh is not None:
            self._refresh(self._networks)


def check_same_rows(**tensors: Tensor) -> None:
    if len({len(t) for t in tensors.values()}) != 1:
        raise ValueError("rows differ: " + ", ".join(f"{name} has {len(t)}" for name, t in tensors.items()))
