"""What the settings of an algorithm do: two critics, a learned scale, behaviour cloning, no entropy."""

import copy
import math
from typing import Any

import pytest
import torch
from test_agent import Batch, make_agent, make_batch
from torch import Tensor

from crl import losses
from crl.agent import Agent
from crl.config import TrainConfig
from crl.resolution import resolve


def twins(**settings: Any) -> Agent:
    return make_agent(num_critics=2, critic_depth=4, actor_depth=4, **settings)


def sampled(agent: Agent, batch: Batch) -> tuple[Tensor, Tensor]:
    """The actions, and their log-probabilities, that the next update will sample."""
    generator = agent._update_generator.clone_state()
    noise = torch.randn(batch.action.shape, generator=generator)
    action, log_prob = agent.networks.actor.sample(batch.observation, batch.goal, noise)
    return action.detach(), log_prob.detach()


def energies(agent: Agent, batch: Batch, action: Tensor) -> list[Tensor]:
    pairs = torch.cat((batch.observation, action), 1)
    with torch.no_grad():
        return [-(phi(pairs) - psi(batch.goal)).norm(dim=1) for phi, psi in agent.networks.critics]


@pytest.mark.parametrize("critic_value", ["mean", "min"])
def test_two_critics_differ_learn_the_same_task_and_speak_as_one(critic_value: str) -> None:
    agent, batch = twins(critic_value=critic_value), make_batch()
    action, log_prob = sampled(agent, batch)
    first, second = energies(agent, batch, action)
    assert not torch.allclose(first, second)
    told = (first + second) / 2 if critic_value == "mean" else torch.minimum(first, second)
    expected = (agent.log_alpha.exp() * log_prob - told).mean()
    metrics = agent.update(batch)
    torch.testing.assert_close(metrics["train/actor_loss"], expected.detach())
    contrastive = []
    for phi, psi in make_agent(num_critics=2, critic_depth=4).networks.critics:
        with torch.no_grad():
            logits = losses.pairwise_energy(phi(torch.cat((batch.observation, batch.action), 1)), psi(batch.goal))
        contrastive.append(losses.contrastive_loss(logits))
    torch.testing.assert_close(metrics["train/contrastive_loss"], torch.stack(contrastive).mean())
    assert {"second.0.output.bias", "second.1.blocks.0.layers.3.dense.weight"} <= agent.state_dict().keys()


def test_a_first_critic_learns_the_same_beside_a_second() -> None:
    alone, both = make_agent(critic_depth=4), twins()
    for step in range(2):
        for agent in (alone, both):
            agent.update(make_batch(step))
    mine, theirs = alone.state_dict(), both.state_dict()
    for name in mine:
        if name.startswith(("goal_encoder", "state_action_encoder")):
            torch.testing.assert_close(theirs[name], mine[name], msg=name)


def test_two_critics_choose_among_candidates_by_what_they_say_together() -> None:
    agent, batch = twins(critic_value="min", num_action_candidates=3), make_batch()
    candidates = 2 * torch.rand(16, 3, 3, generator=torch.Generator().manual_seed(0)) - 1
    each = [torch.minimum(*energies(agent, batch, candidates[:, k])) for k in range(3)]
    with torch.no_grad():
        score = agent.networks.score(batch.observation, batch.goal, candidates)
    torch.testing.assert_close(score, torch.stack(each, 1))


def test_a_learned_scale_multiplies_the_logits_and_moves() -> None:
    learned, plain, fixed = (make_agent(energy="cosine", energy_scale=scale) for scale in ("learned", "1", "dimension"))
    batch = make_batch()
    with torch.no_grad():
        learned.networks.log_scale.fill_(math.log(3))
    with torch.no_grad():
        net = plain.networks
        phi = net.state_action_encoder(torch.cat((batch.observation, batch.action), 1))
        logits = losses.pairwise_energy(phi, net.goal_encoder(batch.goal), "cosine")
    first = learned.update(batch)
    by_dimension = fixed.update(batch)["train/contrastive_loss"]
    torch.testing.assert_close(by_dimension, losses.contrastive_loss(logits / 4))  # of 16 dimensions
    torch.testing.assert_close(first["train/contrastive_loss"], losses.contrastive_loss(3 * logits))
    assert learned.networks.log_scale.item() != pytest.approx(math.log(3), abs=1e-6)
    assert "log_scale" in learned.state_dict().keys() - plain.state_dict().keys()


def test_the_density_of_a_given_action_is_that_of_sampling_it() -> None:
    generator = torch.Generator().manual_seed(1)
    mean, log_std, noise = (torch.randn(64, 3, generator=generator, dtype=torch.float64) for _ in range(3))
    x = 0.5 * mean + (0.2 * log_std).exp() * noise
    expected = losses.tanh_gaussian_log_prob(x, 0.2 * log_std, noise)
    inside = (x.tanh().abs() < 0.999).all(1)
    found = losses.tanh_gaussian_log_prob_of(x.tanh(), 0.5 * mean, 0.2 * log_std)
    torch.testing.assert_close(found[inside], expected[inside])
    assert losses.tanh_gaussian_log_prob_of(torch.ones(3), torch.zeros(3), torch.zeros(3)).isfinite()


@pytest.mark.parametrize("form", losses.BC_FORMS)
def test_behaviour_cloning_is_weighed_against_the_value(form: str) -> None:
    c, alpha = 0.3, torch.tensor(0.7)
    log_prob, q = torch.tensor([-1.0, 2.0]), torch.tensor([-3.0, 1.0])
    found = losses.regularised_actor_loss(log_prob, q, alpha, torch.tensor(5.0), c, form)
    if form == "mixture":
        assert found.item() == pytest.approx(0.7 * (0.7 * 0.5 + 1.0) + 0.3 * 5)
    else:
        assert found.item() == pytest.approx(0.7 * 0.5 + 1.0 / 2 + 0.3 * 5)


def test_behaviour_cloning_alone_imitates() -> None:
    agent = make_agent(bc_coefficient=1.0, learning_rate=3e-3, critic_depth=4)
    done = [agent.update(make_batch(step % 8, 64))["train/bc_loss"] for step in range(150)]
    assert done[-1] < done[0] - 0.5


def test_without_temperature_there_is_no_entropy_term_ever() -> None:
    agent = make_agent(initial_alpha=0.0)
    for step in range(3):
        metrics = agent.update(make_batch(step))
        assert metrics["train/alpha"] == metrics["train/alpha_loss"] == 0
    state = agent.state_dict()
    assert state["log_alpha"] == -math.inf
    assert all(tensor.isfinite().all() for name, tensor in state.items() if name != "log_alpha")
    copy.copy(agent).load_state_dict(state)


def test_the_penalty_of_the_logsumexp_is_the_objectives() -> None:
    chosen = {
        objective: resolve(TrainConfig(objective=objective), device="cpu", num_cores=1).config.logsumexp_penalty
        for objective in ("forward_infonce", "cpc", "binary_nce")
    }
    assert chosen == {"forward_infonce": 0.1, "cpc": 0.01, "binary_nce": 0.0}
