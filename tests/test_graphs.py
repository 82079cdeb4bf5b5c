"""Calls captured as graphs are the plain calls: on a GPU by CUDA, and on a CPU by a stand-in for it."""

import dataclasses
import threading
import warnings
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from recorded_calls import record
from test_agent import Batch, Config, Spec, make_agent, make_batch, observations
from test_baselines import BASELINES, TWINS, make_transitions
from torch import Tensor

from crl import graphs
from crl.agent import Agent
from crl.graphs import KEPT, WARM_UP, Captured
from crl.ranks import Ranks


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """Where calls are captured: on the CPU by a `Recorder`."""
    if request.param == "cpu":
        record(monkeypatch)
    return torch.device(request.param)


class Counted:
    """`function`, and how often the host has called it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.calls = function, 0

    def __call__(self, *arguments: Tensor) -> Any:
        self.calls += 1
        return self.function(*arguments)


def test_calls_follow_their_arguments_and_the_host_calls_no_more(device: torch.device) -> None:
    captured, function = Captured("tests", device), Counted(lambda x, y: {"sum": (x + y).sum(), "max": (x * y).max()})
    for step in range(WARM_UP + 4):
        x, y = torch.full((3, 2), float(step), device=device), torch.full((2,), 2.0, device=device)
        result = captured(function, x, y)
        assert list(result) == ["sum", "max"]
        assert [value.ndim for value in result.values()] == [0, 0]
        assert (result["sum"].item(), result["max"].item()) == (6 * step + 12, 2 * step)
    assert function.calls == WARM_UP + 1


def test_results_and_arguments_are_the_callers_own(device: torch.device) -> None:
    captured = Captured("tests", device)
    argument, kept, expected = torch.zeros(3, device=device), [], []
    for step in range(WARM_UP + 4):
        argument.fill_(step)
        kept.append(captured(lambda x: x * 2, argument))
        expected.append(torch.full((3,), 2.0 * step))
        argument.fill_(torch.nan)
    assert all(torch.equal(got.cpu(), want) for got, want in zip(kept, expected, strict=True))
    assert len({tensor.data_ptr() for tensor in kept}) == len(kept)


def test_what_changes_in_place_changes_once_a_call(device: torch.device) -> None:
    weight = torch.ones(4, device=device, requires_grad=True)

    def step(x: Tensor) -> dict[str, Tensor]:
        weight.grad = None
        loss = (weight * x).square().sum()
        loss.backward()
        with torch.no_grad():
            weight.sub_(weight.grad, alpha=0.1)
        return {"loss": loss.detach()}

    captured, expected = Captured("tests", device), torch.ones(4)
    for number in range(WARM_UP + 4):
        x = torch.arange(4.0) + number
        loss = captured(step, x.to(device))["loss"]
        assert loss.item() == pytest.approx((expected * x).square().sum().item(), rel=1e-5)
        expected -= 0.1 * 2 * expected * x * x
        torch.testing.assert_close(weight.detach().cpu(), expected)


def test_weights_that_are_loaded_are_used(device: torch.device) -> None:
    weight, captured = torch.ones(2, device=device), Captured("tests", device)
    x = torch.ones(2, device=device)
    for step in range(WARM_UP + 3):
        weight.copy_(torch.full((2,), float(step)))
        assert captured(lambda x: weight * x, x).tolist() == [step, step]


def test_every_shape_has_a_graph_of_its_own_and_few_are_kept(device: torch.device) -> None:
    captured, function = Captured("tests", device), Counted(lambda x: x.sum(0) + 1)
    for _ in range(WARM_UP + 3):
        for rows in range(1, KEPT + 1):
            assert captured(function, torch.ones(rows, 2, device=device)).tolist() == [rows + 1] * 2
    assert function.calls == KEPT * (WARM_UP + 1)
    assert captured(function, torch.ones(KEPT + 1, 2, device=device)).tolist() == [KEPT + 2] * 2
    calls = function.calls
    captured(function, torch.ones(2, 2, device=device))  # was used later than that of one row, which made room
    assert function.calls == calls
    captured(function, torch.ones(1, 2, device=device))
    assert function.calls == calls + 1


@pytest.mark.parametrize("draws", [1, 2])
def test_registered_generators_draw_on_as_in_plain_calls(device: torch.device, draws: int) -> None:
    mine, plain = (torch.Generator(device).manual_seed(3) for _ in range(2))

    def noise(generator: torch.Generator, x: Tensor) -> Tensor:
        return x + sum(torch.randn(5, generator=generator, device=device) for _ in range(draws))

    captured, x = Captured("tests", device, generators=[mine]), torch.zeros(5, device=device)
    for _ in range(WARM_UP + 3):
        assert torch.equal(captured(lambda x: noise(mine, x), x), noise(plain, x))
        assert torch.equal(mine.get_state(), plain.get_state())
    mine.set_state(torch.Generator(device).manual_seed(4).get_state())
    plain.manual_seed(4)
    assert torch.equal(captured(lambda x: noise(mine, x), x), noise(plain, x))


def test_what_cannot_be_captured_is_called_and_told_of_once(device: torch.device) -> None:
    captured, function = Captured("tests", device), Counted(lambda x: x * 2 if x.sum().item() > 0 else x)
    argument = torch.ones(2, device=device)
    for _ in range(WARM_UP):
        captured(function, argument)
    with pytest.warns(RuntimeWarning, match=r"CUDA graphs are off for tests, .*: .*not permitted.*--no-graphs"):
        assert captured(function, argument).tolist() == [2, 2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert captured(function, -argument).tolist() == [-1, -1]
        assert captured(function, torch.ones(3, device=device)).tolist() == [2, 2, 2]


def test_noise_of_a_generator_that_is_not_registered_is_never_frozen(device: torch.device) -> None:
    generator, captured = torch.Generator(device), Captured("tests", device)
    draws = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # PyTorch may refuse or register it
        for _ in range(WARM_UP + 3):
            draws.append(
                captured(
                    lambda x: x + torch.randn(3, generator=generator, device=device),
                    draws[-1] if draws else torch.zeros(3, device=device),
                )
            )
    assert len({tuple(draw.tolist()) for draw in draws}) == len(draws)


def test_wrong_arguments_raise_as_they_do_in_plain_calls(device: torch.device) -> None:
    def refuse(x: Tensor) -> Tensor:
        raise ValueError("no")

    captured = Captured("tests", device)
    for _ in range(WARM_UP + 2):
        with pytest.raises(ValueError, match="no"):
            captured(refuse, torch.ones(2, device=device))


def test_readers_are_locked_out_of_replays_alone(device: torch.device) -> None:
    lock = threading.Lock()
    held: list[bool] = []

    class Watched:
        def __enter__(self) -> None:
            lock.acquire()
            held.append(True)

        def __exit__(self, *error: object) -> None:
            lock.release()

    def step(x: Tensor) -> Tensor:
        with lock:  # waits for ever where a call is made under the lock
            return x + 1

    captured = Captured("tests", device, lock=Watched())
    for number in range(WARM_UP + 3):
        captured(step, torch.zeros(1, device=device))
        assert len(held) == max(0, number - WARM_UP + 1)


def test_the_owner_of_a_graph_is_freed_at_once(device: torch.device) -> None:
    class Owner:
        def __init__(self) -> None:
            self.captured, self.weight = Captured("tests", device), torch.ones(2, device=device)

        def step(self, x: Tensor) -> Tensor:
            return self.weight * x

        def __call__(self, x: Tensor) -> Tensor:
            return self.captured(self.step, x)

    owner = Owner()
    for _ in range(WARM_UP + 2):
        owner(torch.ones(2, device=device))
    alive = weakref.ref(owner)
    del owner
    assert alive() is None


@pytest.mark.parametrize("wanted", [True, False])
def test_without_a_gpu_or_when_not_wanted_calls_are_plain(wanted: bool) -> None:
    device = torch.device("cpu") if wanted else torch.device("cuda")
    captured, function = Captured("tests", device, wanted=wanted), Counted(lambda x: x + 1)
    for calls in range(1, WARM_UP + 4):
        captured(function, torch.ones(1))
        assert function.calls == calls


@pytest.mark.gpu
def test_another_thread_works_on_while_a_graph_is_captured() -> None:
    device, stop, errors = torch.device("cuda"), threading.Event(), []

    def work() -> None:
        try:
            while not stop.is_set():
                torch.randn(64, 64, device=device).cpu()
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    for _ in range(5):
        captured = Captured("tests", device)
        for step in range(WARM_UP + 2):
            assert (
                captured(lambda x: (x @ x).sum(), torch.full((8, 8), float(step), device=device)).item()
                == 512 * step**2
            )
    stop.set()
    thread.join()
    assert not errors


# The learner


def assert_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], device: torch.device) -> None:
    """Bit for bit on a CPU. A GPU's products may add in another order on another stream."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if device.type == "cpu" or value.dtype == torch.uint8:
            assert torch.equal(found[name], value), name
        else:
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"recompute": True, "actor_ema": 0.9, "block_metrics": True, "actor_goals": "mixture"},
        {"precision": "bf16"},
        {"network": "hyperspherical", "actor_goals": "random"},
        {"network": "mlp", "num_critics": 2, "objective": "cpc", "energy_scale": "learned", "bc_coefficient": 0.1},
    ],
    ids=["published", "everything", "bf16", "hyperspherical", "mlp"],
)
def test_captured_updates_are_plain_updates(device: torch.device, settings: dict[str, Any]) -> None:
    captured, plain = (make_agent(device.type, graphs=wanted, **settings) for wanted in (True, False))
    captured.algorithm.backward = by_host = Counted(captured.algorithm.backward)  # type: ignore[method-assign]
    steps = WARM_UP + 3
    for step in range(steps):
        batch = make_batch(step, device=device.type)
        assert_same(captured.update(batch), plain.update(batch), device)
        assert_same(captured.state_dict(), plain.state_dict(), device)
    assert by_host.calls == WARM_UP + 1
    # Another state, and another number of rows in between.
    other = make_agent(device.type, seed=3, **settings)
    for step in range(2):
        other.update(make_batch(step, device=device.type))
    for agent in (captured, plain):
        agent.load_state_dict(other.state_dict())
    for step in range(steps):
        batch = make_batch(step, 8 if step == 1 else 16, device.type)
        assert_same(captured.update(batch), plain.update(batch), device)
    assert_same(captured.state_dict(), plain.state_dict(), device)
    assert by_host.calls == WARM_UP + 2


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    "settings",
    [{"objective": "c_learning", "critic_depth": 4, "gamma": 0.9}, *({"algorithm": name} for name in BASELINES)],
    ids=["c_learning", *BASELINES],
)
def test_every_algorithm_can_be_captured(device: torch.device, settings: dict[str, Any]) -> None:
    """Those that skip every second update, or go by rewards and targets, too."""
    twins = TWINS if settings.get("algorithm") in ("sac", "td3") else {}
    agents = [make_agent(device.type, graphs=wanted, **twins, **settings) for wanted in (True, False)]
    agents[0].algorithm.backward = by_host = Counted(agents[0].algorithm.backward)  # type: ignore[method-assign]
    for step in range(WARM_UP + 4):
        batch = make_transitions(step)
        found, expected = (agent.update(batch) for agent in agents)
        assert_same(found, expected, device)
        assert_same(agents[0].state_dict(), agents[1].state_dict(), device)
    assert by_host.calls == WARM_UP + 1


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("candidates", [1, 4])
def test_captured_actions_are_plain_actions(device: torch.device, candidates: int) -> None:
    captured, plain = (
        make_agent(device.type, graphs=wanted, num_action_candidates=candidates) for wanted in (True, False)
    )
    observation, goal = (rows.to(device) for rows in observations())
    followers = captured.policy(), plain.policy()
    for step in range(WARM_UP + 3):
        for acting in ((captured, plain), followers):
            for deterministic in (False, True):
                mine, expected = (who.act(observation + step, goal, deterministic) for who in acting)
                torch.testing.assert_close(mine, expected, rtol=0, atol=0 if device.type == "cpu" else 1e-5)
        for agent in (captured, plain):
            agent.update(make_batch(step, device=device.type))
        for policy in followers:
            policy.refresh()
    assert_same(captured.state_dict(), plain.state_dict(), device)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("looking", [{}, {"crop_padding": 3, "image_encoder": "residual"}], ids=["plain", "cropped"])
def test_the_first_images_set_the_backdrop_once(looking: dict[str, Any], device: torch.device) -> None:
    @dataclasses.dataclass(frozen=True)
    class Pictures(Spec):
        image: tuple[int, int, int] = (36, 36, 1)
        observation_dim: int = 36 * 36
        goal_dim: int = 36 * 36

    captured, plain = (
        Agent(Pictures(), Config(graphs=wanted, width=8, critic_depth=4, **looking), device) for wanted in (True, False)
    )
    generator = torch.Generator().manual_seed(0)
    for _ in range(WARM_UP + 2):
        images = torch.randint(256, (2, 4, 36 * 36), generator=generator, dtype=torch.uint8)
        batch = Batch(images[0], torch.zeros(4, 3), images[1])
        assert_same(captured.update(batch), plain.update(batch), device)


def test_no_graphs_where_they_are_not_wanted_or_ranks_must_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(graphs, "backend", made.append)

    class Two(Ranks):
        size = 2

    make_agent(graphs=False)
    assert not made
    Agent(Spec(), Config(), "cpu", Two())
    assert len(made) == 2, "acting alone"
    make_agent()
    assert len(made) == 5, "updates too"
