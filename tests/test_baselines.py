"""SAC, TD3, GCBC and the forward model: losses by slow formulas, rewards by the environments', learning, whole runs."""

import copy
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Quiet
from test_agent import Batch, Config, Spec, make_batch
from test_collector import CountingEnv, Policy
from test_resume import assert_same, resume, start
from torch import Tensor, nn
from torch.distributions import Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from crl import envs, run
from crl.adam import Adam
from crl.agent import Agent
from crl.algorithms import GCBC, SAC, TD3, ForwardModel
from crl.algorithms.td import TemporalDifference
from crl.collector import Collector
from crl.config import TrainConfig
from crl.errors import ConfigError
from crl.metrics import METRICS, read_metrics
from crl.ranks import ALONE, Ranks
from crl.resolution import resolve

Tiny = Callable[..., TrainConfig]
BASELINES = ("sac", "td3", "gcbc", "forward_model")
TWINS = {"num_critics": 2, "critic_value": "min"}
ROWS = 12


@dataclass
class Transition(Batch):
    next_observation: Tensor
    next_achieved_goal: Tensor
    next_terminal: Tensor
    desired_goal: Tensor


def make_agent(algorithm: str, ranks: Ranks = ALONE, **settings: Any) -> Agent:
    settings = {"critic_depth": 4, **(TWINS if algorithm in ("sac", "td3") else {}), **settings}
    return Agent(Spec(), Config(algorithm=algorithm, **settings), ranks=ranks)


def make_transitions(seed: int = 0, rows: int = ROWS, size: float = 1.0) -> Transition:
    """Rows that move by their action, at most `size`; some come to their goal, some episodes end."""
    batch, generator = make_batch(seed, rows), torch.Generator().manual_seed(1000 + seed)
    action = size * batch.action
    moved = batch.observation[:, :2] + action[:, :2]
    return Transition(
        observation=batch.observation,
        action=action,
        goal=moved + 0.5 * torch.randn(rows, 2, generator=generator),
        next_observation=torch.cat((moved, batch.observation[:, 2:]), 1),
        next_achieved_goal=moved,
        next_terminal=torch.rand(rows, generator=generator) < 0.3,
        desired_goal=moved + 0.5 * torch.randn(rows, 2, generator=generator),
    )


# --- slow formulas in float64 ---------------------------------------------------------------------------------------


def double(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).double().requires_grad_(True)


def squashed(output: tuple[Tensor, Tensor], row: int) -> TransformedDistribution:
    mean, log_std = output
    return TransformedDistribution(Normal(mean[row], log_std[row].exp()), [TanhTransform()])


class Slow:
    """One update's losses, row by row, of copies of an agent's networks in float64."""

    def __init__(self, agent: Agent, batch: Transition) -> None:
        self.config, generator = agent.config, agent._update_generator.clone_state()
        self.noise, self.next_noise = (torch.randn(batch.action.shape, generator=generator).double() for _ in range(2))
        self.net = double(agent.networks)
        self.target = double(agent.algorithm.target) if agent.algorithm.target is not None else None
        self.alpha = agent.log_alpha.detach().double().exp()
        columns = {name: getattr(batch, name).double() for name in vars(batch)}
        self.rows = SimpleNamespace(**columns)
        share = self.config.commanded_share if self.target is not None else 0
        kept = round(share * len(batch.goal))
        self.goal = torch.stack([columns["desired_goal" if i < kept else "goal"][i] for i in range(len(batch.goal))])

    def reward(self, i: int) -> float:
        return float(math.dist(self.rows.next_achieved_goal[i].tolist(), self.goal[i].tolist()) < 0.5)

    def discount(self, i: int) -> float:
        return 0.0 if self.rows.next_terminal[i] else self.config.gamma

    def q(self, critics: Any, observation: Tensor, action: Tensor, i: int) -> list[Tensor]:
        row = torch.cat((observation[i], self.goal[i], action))
        return [critic(row[None])[0, 0] for critic in critics]

    def sac(self) -> tuple[Tensor, Tensor]:
        now = self.net.actor(self.rows.observation, self.goal)
        then = self.net.actor(self.rows.next_observation, self.goal)
        critic_loss, actor_loss = torch.zeros(2).double().unbind()
        for i in range(ROWS):
            following = torch.tanh(then[0][i] + then[1][i].exp() * self.next_noise[i])
            value = min(self.q(self.target, self.rows.next_observation, following, i))
            value = value - self.alpha * squashed(then, i).log_prob(following).sum()
            y = (self.reward(i) + self.discount(i) * value).detach()
            for q in self.q(self.net.critics, self.rows.observation, self.rows.action[i], i):
                critic_loss = critic_loss + (q - y) ** 2 / 2 / ROWS
            action = torch.tanh(now[0][i] + now[1][i].exp() * self.noise[i])
            best = min(self.q(double(self.net.critics), self.rows.observation, action, i))
            actor_loss = actor_loss + (self.alpha * squashed(now, i).log_prob(action).sum() - best) / ROWS
        return critic_loss, actor_loss

    def td3(self) -> tuple[Tensor, Tensor]:
        now = self.net.actor(self.rows.observation, self.goal)[0]
        then = self.target["actor"](self.rows.next_observation, self.goal)[0]
        critic_loss, actor_loss = torch.zeros(2).double().unbind()
        for i in range(ROWS):
            smooth = torch.tensor([min(max(0.2 * n, -0.5), 0.5) for n in self.noise[i].tolist()])
            following = torch.tensor([min(max(a, -1.0), 1.0) for a in (then[i].tanh() + smooth).tolist()]).double()
            value = min(self.q(self.target["critics"], self.rows.next_observation, following, i))
            y = (self.reward(i) + self.discount(i) * value).detach()
            for q in self.q(self.net.critics, self.rows.observation, self.rows.action[i], i):
                critic_loss = critic_loss + (q - y) ** 2 / 2 / ROWS
            first = self.q(double(self.net.critics), self.rows.observation, now[i].tanh(), i)[0]
            actor_loss = actor_loss - first / ROWS
        return critic_loss, actor_loss

    def gcbc(self) -> tuple[Tensor, Tensor]:
        output, loss = self.net.actor(self.rows.observation, self.goal), torch.zeros(()).double()
        for i in range(ROWS):
            loss = loss - squashed(output, i).log_prob(self.rows.action[i].clamp(-0.999, 0.999)).sum() / ROWS
        return torch.zeros(()).double(), loss

    def forward_model(self) -> tuple[Tensor, Tensor]:
        def density(model: nn.Module, action: Tensor, i: int) -> Tensor:
            output = model(torch.cat((self.rows.observation[i], action))[None])[0]
            return Normal(output[:2], (5 * output[2:].tanh()).exp()).log_prob(self.goal[i]).sum()

        now = self.net.actor(self.rows.observation, self.goal)
        model_loss, actor_loss = torch.zeros(2).double().unbind()
        for i in range(ROWS):
            model_loss = model_loss - density(self.net.model, self.rows.action[i], i) / ROWS
            action = torch.tanh(now[0][i] + now[1][i].exp() * self.noise[i])
            likely = density(double(self.net.model), action, i)
            actor_loss = actor_loss + (self.alpha * squashed(now, i).log_prob(action).sum() - likely) / ROWS
        return model_loss, actor_loss


@pytest.mark.parametrize(
    ("algorithm", "settings"),
    [
        ("sac", {"commanded_share": 0.25}),
        ("sac", {"num_critics": 1, "network": "mlp"}),
        ("td3", {"commanded_share": 1.0}),
        ("gcbc", {}),
        ("forward_model", {}),
    ],
)
def test_losses_and_gradients_are_those_of_slow_formulas(algorithm: str, settings: dict[str, Any]) -> None:
    agent, batch = make_agent(algorithm, **settings), make_transitions()
    if agent.algorithm.target is not None:  # so that targets are not what they follow
        for target in agent.algorithm.target.parameters():
            target.mul_(1.1)
    slow = Slow(agent, batch)
    critic_loss, actor_loss = getattr(slow, algorithm)()
    (critic_loss + actor_loss).backward() if critic_loss.requires_grad else actor_loss.backward()
    metrics = agent.update(batch)
    if critic_loss.requires_grad:
        critics = agent.config.num_critics
        assert metrics["train/critic_loss"].item() == pytest.approx(critic_loss.item() / critics, rel=1e-5)
    name = "train/bc_loss" if algorithm == "gcbc" else "train/actor_loss"
    assert metrics[name].item() == pytest.approx(actor_loss.item(), rel=1e-5, abs=1e-6)
    if "train/reward_mean" in metrics:
        rewards = [slow.reward(i) for i in range(ROWS)]
        assert 0 < sum(rewards) < ROWS
        assert metrics["train/reward_mean"].item() == pytest.approx(sum(rewards) / ROWS)
    expected = dict(slow.net.named_parameters())
    for name, parameter in agent.networks.named_parameters():
        assert parameter.grad is not None
        largest = expected[name].grad.abs().max().item()
        torch.testing.assert_close(parameter.grad.double(), expected[name].grad, rtol=1e-4, atol=1e-5 * largest + 1e-9)


def test_what_a_return_is_made_of() -> None:
    """By hand: three rows, their goals at .3, .7 and where they are; the second is the end of its episode."""
    agent, batch = make_agent("sac", gamma=0.9, commanded_share=1 / 3), make_transitions(rows=3)
    batch.next_achieved_goal = torch.zeros(3, 2)
    batch.goal = torch.tensor([[9.0, 9.0], [0.7, 0.0], [0.0, 0.0]])
    batch.desired_goal = torch.tensor([[0.0, 0.3], [0.0, 0.0], [9.0, 9.0]])
    batch.next_terminal = torch.tensor([False, True, False])
    assert isinstance(agent.algorithm, TemporalDifference)
    found = agent.algorithm.transitions(agent._rows(batch))
    assert found.goal.tolist() == [pytest.approx([0.0, 0.3]), pytest.approx([0.7, 0.0]), [0.0, 0.0]]
    assert found.reward.tolist() == [1.0, 0.0, 1.0]
    assert found.discount.tolist() == [pytest.approx(0.9), 0.0, pytest.approx(0.9)]


def test_targets_follow_slowly_and_all_is_in_the_state() -> None:
    agent = make_agent("sac")
    before = {name: x for name, x in agent.state_dict().items() if name.startswith("target.")}
    agent.update(make_transitions())
    after = agent.state_dict()
    assert before
    for name, old in before.items():
        present = after[name.replace("target", "critics", 1)]
        torch.testing.assert_close(after[name], old + 0.005 * (present - old))


def test_the_delayed_actor_moves_with_its_targets_in_every_second_update() -> None:
    agent, states = make_agent("td3"), []
    for step in range(5):
        states.append(agent.state_dict())
        agent.update(make_transitions(step))
    moved = [
        {part: any(not torch.equal(a[n], b[n]) for n in a if n.startswith(part)) for part in ("actor.", "target.")}
        for a, b in itertools.pairwise(states)
    ]
    assert [each["actor."] for each in moved] == [False, True, False, True] == [each["target."] for each in moved]
    assert all(
        not torch.equal(a["critics.1.output.bias"], b["critics.1.output.bias"]) for a, b in itertools.pairwise(states)
    )
    assert set(states[4]["adam.steps"].tolist()) == {0.0, 2.0, 4.0}  # temperature, actor, critics
    torch.testing.assert_close(
        states[3]["target.actor.network.output.bias"], states[2]["target.actor.network.output.bias"]
    )
    old, new = states[1]["target.actor.network.output.bias"], states[2]["target.actor.network.output.bias"]
    torch.testing.assert_close(new, old + 0.005 * (states[2]["actor.network.output.bias"] - old))
    again = make_agent("td3", seed=5)
    again.load_state_dict(states[3])
    for step in (3, 4):
        again.update(make_transitions(step))
    assert all(torch.equal(x, again.state_dict()[name]) for name, x in agent.state_dict().items())


def test_adam_leaves_alone_what_it_is_told_to() -> None:
    names = ("a", "b", "c")
    weights = {name: nn.Parameter(torch.ones(2)) for name in names}
    adam = Adam(weights, 0.1, delayed=("b",))
    for step in range(4):
        for name in ("a", "b"):
            weights[name].grad = torch.tensor([1.0, -2.0]) * (step + 1)
        adam.step(torch.tensor(float(step % 2)))
    alone = nn.Parameter(torch.ones(2))
    other = Adam({"b": alone}, 0.1)
    for step in (0, 2):
        alone.grad = torch.tensor([1.0, -2.0]) * (step + 1)
        other.step()
    assert torch.equal(weights["b"], alone)
    assert torch.equal(weights["c"], torch.ones(2))
    assert adam.state()["steps"].tolist() == [4.0, 2.0, 0.0]


def test_td3_explores_around_its_mode() -> None:
    agent, batch = make_agent("td3", exploration_noise=0.2), make_batch(rows=4000)
    mode = agent.act(batch.observation, batch.goal, deterministic=True)
    off = agent.act(batch.observation, batch.goal) - mode
    assert off.std().item() == pytest.approx(0.2, rel=0.03)
    assert (mode + off).abs().max() <= 1


@pytest.mark.parametrize("algorithm", ["sac", "td3", "forward_model"])
def test_candidates_are_chosen_by_what_judges_actions(algorithm: str) -> None:
    agent, batch = make_agent(algorithm, num_action_candidates=3), make_batch()
    candidates = 2 * torch.rand(16, 3, 3, generator=torch.Generator().manual_seed(0)) - 1
    with torch.no_grad():
        found = agent.networks.score(batch.observation, batch.goal, candidates)
        for k in range(3):
            alone = agent.networks.score(batch.observation, batch.goal, candidates[:, k : k + 1])
            torch.testing.assert_close(found[:, k : k + 1], alone)
    assert found.std(1).min() > 0
    assert agent.act(batch.observation, batch.goal).shape == (16, 3)


class Half(Ranks):
    """One of two processes, without the other."""

    size = 2

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def own(self, rows: Tensor) -> Tensor:
        return rows.chunk(2)[self.rank]

    def average(self, tensors: Any) -> None:
        pass


@pytest.mark.parametrize("algorithm", BASELINES)
def test_two_halves_of_a_batch_give_the_gradient_of_the_whole(algorithm: str) -> None:
    batch = make_transitions()
    whole = make_agent(algorithm)
    whole.update(batch)
    halves = []
    for rank in (0, 1):
        agent = make_agent(algorithm, ranks=Half(rank))
        agent.update(Transition(**{name: x.chunk(2)[rank] for name, x in vars(batch).items()}))
        halves.append(dict(agent.networks.named_parameters()))
    for name, parameter in whole.networks.named_parameters():
        mean = (halves[0][name].grad + halves[1][name].grad) / 2
        torch.testing.assert_close(mean, parameter.grad, rtol=1e-4, atol=1e-5 * mean.abs().max().item() + 1e-9)


@pytest.mark.parametrize("algorithm", BASELINES)
def test_bf16_computes_nearly_the_same(algorithm: str) -> None:
    full, half = (make_agent(algorithm, precision=p).update(make_transitions()) for p in ("float32", "bf16"))
    assert full.keys() == half.keys() <= METRICS.keys()
    for name in full:
        assert half[name].dtype == torch.float32
        if name.endswith("loss"):
            assert half[name].item() == pytest.approx(full[name].item(), rel=0.05, abs=0.05)


# --- learning -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", BASELINES)
def test_it_learns_to_go_where_it_is_told(algorithm: str) -> None:
    """One step of (a_1, a_2) from s, at the goal within .5: misses fall, from those of a policy that knows nothing."""
    settings = {"network": "mlp", "critic_depth": 2, "actor_depth": 2, "initial_alpha": 0.05, "commanded_share": 0.5}
    agent = make_agent(algorithm, learning_rate=5e-3, **settings)
    near = make_transitions(999, 512, 0.8)
    near.goal = near.next_achieved_goal

    def miss() -> float:
        action = agent.act(near.observation, near.goal, deterministic=True)
        return float((near.observation[:, :2] + action[:, :2] - near.goal).norm(dim=1).mean())

    before = miss()
    for step in range({"sac": 400, "td3": 600}.get(algorithm, 200)):
        batch = make_transitions(step, 128, 0.8)
        batch.next_terminal[:] = True
        if algorithm in ("gcbc", "forward_model"):
            batch.goal = batch.next_achieved_goal
        agent.update(batch)
    assert before > 0.4
    assert miss() < 0.6 * before


# --- what is stored, and rewards ------------------------------------------------------------------------------------


def test_the_goal_acted_for_and_ends_of_their_own_are_kept() -> None:
    """Of CountingEnv the second world alone terminates; time ends the others' episodes."""
    env = CountingEnv()
    spec = SimpleNamespace(observation_dim=2, action_dim=1, goal_dim=1, image=None)
    buffer = run.new_buffer(spec, 3, 3 * 40, stores=("terminal", "desired_goal"))
    Collector(env, Policy(), buffer, seed=5, stores=("terminal", "desired_goal")).collect(30)
    found = buffer.sample(600, goal="next", columns=("next_terminal", "desired_goal", "next_achieved_goal"))
    moment = found.observation[:, 0]
    np.testing.assert_array_equal(found.desired_goal[:, 0], moment // 100 * 100 + 50)
    np.testing.assert_array_equal(found.next_terminal, moment // 1e4 == 1)
    assert 0 < found.next_terminal.sum() < 600


def test_ends_that_come_with_the_next_start_are_kept_too() -> None:
    class SameStep(CountingEnv):
        def step(self, action: Any) -> Any:
            shown, reward, terminated, truncated, _ = super().step(action)
            ended = terminated | truncated
            finals = np.array([{k: v[w] for k, v in shown.items()} for w in range(self.num_envs)], dtype=object)
            self.episode, self.moment = self.episode + ended, np.where(ended, 0, self.moment)
            self.done = np.zeros(self.num_envs, dtype=bool)
            return self._shown(), reward, terminated, truncated, {"final_obs": finals} if ended.any() else {}

    spec = SimpleNamespace(observation_dim=2, action_dim=1, goal_dim=1, image=None)
    buffer = run.new_buffer(spec, 3, 3 * 40, stores=("terminal", "desired_goal"))
    Collector(SameStep(), Policy(), buffer, seed=5, stores=("terminal", "desired_goal")).collect(24)
    found = buffer.sample(600, goal="next", columns=("next_terminal", "desired_goal"))
    np.testing.assert_array_equal(found.next_terminal, found.observation[:, 0] // 1e4 == 1)
    np.testing.assert_array_equal(found.desired_goal[:, 0], found.observation[:, 0] // 100 * 100 + 50)


@pytest.mark.parametrize("name", ["point_u_maze", "reacher", "pusher2", "arm_grasp", "arm_binpick_easy_eef"])
def test_success_of_tensors_is_that_of_the_task(name: str) -> None:
    from crl.envs.registry import create

    task, rng = create(name, {}), np.random.default_rng(0)
    size = task.spec.success_threshold * (0.07 if name == "arm_grasp" else 1)
    desired = rng.normal(size=(500, task.spec.goal_dim)).astype(np.float32)
    achieved = desired + (0.6 * size * rng.normal(size=desired.shape)).astype(np.float32)
    expected = task.distance(achieved, desired) < task.spec.success_threshold
    found = task.spec.reached(torch.from_numpy(achieved), torch.from_numpy(desired))
    assert found.dtype == torch.bool
    np.testing.assert_array_equal(found.numpy(), expected)
    np.testing.assert_array_equal(task.spec.reached(achieved, desired), expected)
    assert 20 < expected.sum() < 480


def test_rewards_are_those_of_the_environment_on_real_transitions() -> None:
    """With every goal as commanded, what the algorithm computes is what the environment gave."""
    config = resolve(TrainConfig(env="reacher", algorithm="sac", commanded_share=1.0), device="cpu", num_cores=1).config
    spec, given = envs.spec("reacher"), {}
    env = envs.make("reacher", 16, seed=3)
    step = env.step

    def told(actions: Any) -> Any:
        result = step(actions)
        for observation, reward in zip(result[0]["observation"], result[1], strict=True):
            given[observation.tobytes()] = reward
        return result

    env.step = told
    agent = Agent(spec, replace(config, width=8))
    stores = SAC.stores(config)
    buffer = run.new_buffer(spec, 16, 16 * 400, stores=stores)
    Collector(env, agent, buffer, seed=3, stores=stores).collect(300)
    env.close()
    batch = buffer.sample(2000, goal=config.goals, columns=agent.columns)
    assert isinstance(agent.algorithm, TemporalDifference)
    found = agent.algorithm.transitions(agent._rows(batch))
    expected = [given[row.tobytes()] for row in batch.next_observation]
    assert found.reward.tolist() == expected
    assert 0 < sum(expected) < 2000


# --- settings and runs ----------------------------------------------------------------------------------------------


def test_what_an_algorithm_takes_by_default() -> None:
    sac, crl = (resolve(TrainConfig(algorithm=name), device="cpu", num_cores=1).config for name in ("sac", "crl"))
    assert (sac.num_critics, sac.critic_value, sac.goals, sac.commanded_share) == (2, "min", "uniform", 0.2)
    assert (crl.num_critics, crl.critic_value, crl.goals, crl.commanded_share) == (1, "mean", "geometric", 0.0)
    settings = TrainConfig(algorithm="td3", preset="jaxgcrl")  # which has one critic and geometric goals, of CRL
    td3 = resolve(settings, device="cpu", num_cores=1).config
    assert (td3.num_critics, td3.critic_value, td3.goals, td3.network) == (2, "min", "uniform", "mlp")
    assert SAC.stores(sac) == TD3.stores(sac) == ("terminal", "desired_goal")
    assert SAC.stores(replace(sac, commanded_share=0.0)) == ("terminal",)
    assert GCBC.stores(crl) == ForwardModel.stores(crl) == ()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"algorithm": "sc"}, "Did you mean 'sac'"),
        (
            {"algorithm": "gcbc", "num_action_candidates": 4},
            "num_action_candidates is not read by algorithm gcbc, but by crl, sac, td3",
        ),
        ({"algorithm": "td3", "initial_alpha": 0.3}, "initial_alpha is not read by algorithm td3"),
        (
            {"algorithm": "sac", "energy": "dot"},
            "energy is not read by algorithm sac, but by crl: leave it out, got 'dot'",
        ),
        ({"commanded_share": 0.5}, "commanded_share is not read by algorithm crl, but by sac, td3"),
        ({"algorithm": "sac", "env": "point_u_maze_image"}, "images do not say success. Choose algorithm crl or gcbc"),
        ({"algorithm": "forward_model", "env": "point_u_maze_image"}, "not images"),
        ({"algorithm": "sac", "dataset": "some.npz"}, "data sets do not say: choose algorithm crl, gcbc or forward"),
    ],
)
def test_what_an_algorithm_does_not_read_or_cannot_learn_from_is_refused(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        resolve(TrainConfig(**settings), device="cpu", num_cores=1)
    assert message in str(error.value)


def test_an_environment_that_alone_knows_success_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = replace(envs.spec("reacher"), success_threshold=0.0, success="as info says")
    monkeypatch.setattr(envs, "spec", lambda name, **options: spec)
    with pytest.raises(ConfigError, match=r"as info says.*--env-options success_threshold="):
        resolve(TrainConfig(env="reacher", algorithm="td3"), device="cpu", num_cores=1)
    resolve(TrainConfig(env="reacher", algorithm="gcbc"), device="cpu", num_cores=1)


@pytest.mark.parametrize("algorithm", BASELINES)
def test_a_run_that_was_stopped_ends_as_one_that_was_not(tiny: Tiny, algorithm: str) -> None:
    settings = {"algorithm": algorithm, "total_env_steps": 200, "block_metrics": True, "eval_interval": 200}
    settings["representation_dim"] = 64  # of crl alone
    straight = start(tiny("straight", **settings))
    assert straight.updates == 20
    own = {"sac": "train/critics_last_grad_norm", "td3": "train/q_mean", "forward_model": "train/model_last_grad_norm"}
    assert own.get(algorithm, "train/bc_loss") in read_metrics(straight.run_dir / "metrics.csv")[-2]
    reporter = Quiet()
    reporter.stop_when = lambda progress: progress.updates == 7
    assert start(tiny("stopped", **settings), reporter).interrupted
    resume(tiny("stopped").run_dir)
    assert_same(tiny("straight").run_dir, tiny("stopped").run_dir)
