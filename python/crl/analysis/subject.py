"""A trained agent as the analyses see it: what its critic says of states, actions and goals, and by which features.

Letters: N rows, O observation, G goal, A action, F features.
"""

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from crl import checkpoint, envs, run
from crl.agent import Agent
from crl.algorithms.contrastive import Encoders
from crl.algorithms.forward_model import Model
from crl.algorithms.td import Critics
from crl.config import TrainConfig
from crl.envs import EnvSpec
from crl.images import Vision
from crl.networks import FourierFeatures
from crl.policy import Array, Networks, Policy

ROWS = 4096
"""As many rows at a time pass the networks."""


@dataclass(frozen=True)
class Subject:
    """An agent, trained or not."""

    label: str
    """What pictures call it."""
    settings: TrainConfig
    spec: EnvSpec
    agent: Agent
    policy: Policy
    """Whose mode is its action."""

    @property
    def networks(self) -> Networks:
        """All of its networks."""
        return self.agent.networks

    @property
    def has_critic(self) -> bool:
        """Whether something scores its actions."""
        return isinstance(self.networks, Encoders | Critics | Model)

    @property
    def has_representations(self) -> bool:
        """Whether it has phi(s, a) and psi(g)."""
        return isinstance(self.networks, Encoders)

    def action(self, observation: Array, goal: Array) -> Tensor:
        """The mode of the policy: (N, O), (N, G) -> (N, A)."""
        return self.policy.act(observation, goal, deterministic=True)

    def value(self, observation: Array, goal: Array) -> NDArray[np.float64]:
        """What the critic says of the policy's own action, (N, O), (N, G) -> (N,): of crl its energy, else Q."""
        return self._rows(self.score, observation, goal, self.action(observation, goal))

    def score(self, observation: Tensor, goal: Tensor, action: Tensor) -> Tensor:
        """The critic's value of each row, differentiable in its weights: (N, O), (N, G), (N, A) -> (N,)."""
        return self.networks.score(*self._seen(observation, goal), action[:, None])[:, 0]

    def critic_parameters(self) -> list[nn.Parameter]:
        """All weights but the actor's."""
        return [p for name, p in self.networks.named_parameters() if not name.startswith("actor.")]

    def features(self, observation: Array, goal: Array, action: Array) -> NDArray[np.float64]:
        """What it makes of each (state, action): (N, O), (N, G), (N, A) -> (N, F).

        Of crl phi(s, a), which does not see the goal. Of a critic Q(s, g, a) or a forward model what the last layer
        reads it from; of a policy alone, the same of the actor.
        """
        reader = _reader(self.networks)
        return self._rows(lambda o, g, a: reader(*self._seen(o, g), a), observation, goal, action)

    def goal_features(self, goal: Array) -> NDArray[np.float64]:
        """psi(g) of agents that have it: (N, G) -> (N, F)."""
        assert isinstance(self.networks, Encoders)
        encoder = self.networks.critics[0][1]
        return self._rows(lambda g: encoder(self.networks.inputs.of_goal(g)), goal)

    def untrained(self, seed: int) -> "Subject":
        """The same agent with weights drawn from `seed`, as before its first update; it sees its inputs as this one."""
        settings = dataclasses.replace(self.settings, seed=seed)
        agent = Agent(self.spec, settings, settings.device)
        agent.networks.inputs.load_state_dict(self.networks.inputs.state_dict())
        return dataclasses.replace(self, label="untrained", agent=agent, policy=agent.evaluation_policy())

    def _seen(self, observation: Tensor, goal: Tensor) -> tuple[Tensor, Tensor]:
        """Both as the networks see them."""
        inputs = self.networks.inputs
        return inputs.of_observation(observation), inputs.of_goal(goal)

    @torch.no_grad()
    def _rows(self, function: Callable[..., Tensor], *columns: Array) -> NDArray[np.float64]:
        """`function` of columns (N, ...), some rows at a time."""
        numerics, parts = self.agent.algorithm.numerics, []
        for first in range(0, len(columns[0]), ROWS):
            rows = [numerics.column(column[first : first + ROWS]) for column in columns]
            with numerics.network_precision():
                parts.append(function(*rows).double().cpu().numpy())
        return np.concatenate(parts)


def load(run_dir: Path, device: str = "auto", env: str | None = None) -> tuple[Subject, str, dict[str, Any]]:
    """The newest checkpoint of a run, its environment's name and its options; with `env`, that of another one.

    Raises:
        ConfigError: an environment of other dimensions.
        CheckpointError: the run or its checkpoint cannot be read.
    """
    changes: dict[str, Any] = {"num_action_candidates": 1, "device": device} | ({"eval_env": env} if env else {})
    saved = checkpoint.latest(run_dir)
    settings = run.resolve(run.reopen(run_dir, changes, run.EVALUABLE)).config
    agent = run.load_agent(saved, settings)
    spec = envs.spec(settings.env, **settings.env_kwargs)
    label = f"{settings.algorithm}, depth {settings.critic_depth}, seed {settings.seed}"
    name, options = (env, settings.eval_env_kwargs) if env else (settings.env, settings.env_kwargs)
    return Subject(label, settings, spec, agent, agent.evaluation_policy()), name, options


def _reader(networks: Networks) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The function of observation, goal and action that `Subject.features` speaks of."""
    match networks:
        case Encoders():
            phi = networks.critics[0][0]
            return lambda o, g, a: phi(torch.cat((o, a), -1))
        case Critics():
            critic = _headless(networks.critics[0])
            return lambda o, g, a: critic(torch.cat((o, g, a), -1))
        case Model():
            model = _headless(networks.model)
            return lambda o, g, a: model(torch.cat((o, a), -1))
        case _:
            actor = _headless(networks.actor.network)
            return lambda o, g, a: actor(torch.cat((o, g), -1))


def _headless(network: nn.Module) -> nn.Module:
    """A copy of a network that gives what its linear output reads."""
    network = copy.deepcopy(network)
    last: Any = network.network if isinstance(network, Vision | FourierFeatures) else network
    last.output.weight = nn.Parameter(torch.eye(last.output.in_features).to(last.output.weight))
    last.output.bias = nn.Parameter(torch.zeros(last.output.in_features).to(last.output.bias))
    return network
