"""A run that begins with what another one learnt."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from conftest import Quiet
from test_agent import Config, Spec, make_batch
from test_resume import resume, start

from crl import checkpoint
from crl.agent import Agent
from crl.config import TrainConfig
from crl.errors import CheckpointError, ConfigError

Tiny = Callable[..., TrainConfig]


def trained(**settings: Any) -> Agent:
    agent = Agent(Spec(), Config(critic_depth=4, normalize_observations=True, **settings))
    for seed in range(3):
        agent.update(make_batch(seed))
    return agent


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("part", "taken"), [("all", {"actor", "critic"}), ("encoders", {"critic"}), ("actor", {"actor"})]
)
@pytest.mark.parametrize(
    "settings",
    [{}, {"algorithm": "sac", "num_critics": 2}, {"algorithm": "forward_model"}, {"actor_ema": 0.9}],
    ids=str,
)
def test_what_is_taken_and_what_stays_new(part: str, taken: set[str], settings: dict[str, Any]) -> None:
    if settings.get("algorithm") == "sac":
        old = Agent(Spec(), Config(critic_depth=4, normalize_observations=True, **settings))
        with torch.no_grad():
            for parameter in old.networks.parameters():
                parameter.add_(0.1)
    else:
        old = trained(**settings)
    new = Agent(Spec(), Config(critic_depth=4, normalize_observations=True, seed=9, **settings))
    before, source = new.state_dict(), old.state_dict()
    new.begin_with(source, part)
    for name, tensor in new.state_dict().items():
        kind = "actor" if name.startswith("actor.") else "critic"
        if name.startswith("inputs."):
            assert torch.equal(tensor, source[name]), name
        elif name.startswith(("adam.", "generator.", "log_alpha")):
            assert torch.equal(tensor, before[name]), name
        elif name.startswith("actor_ema."):
            assert torch.equal(tensor, new.state_dict()[name.replace("actor_ema.", "actor.")]), name
        else:
            assert torch.equal(tensor, (source if kind in taken else before)[name]), name
    # How the world is seen belongs to the weights: the first batch of the new run does not set it again.
    if settings.get("algorithm") != "sac":
        new.update(make_batch(7))
        assert torch.equal(new.state_dict()["inputs.observation"], source["inputs.observation"])


def test_a_run_resumed_before_its_first_update_sees_as_the_run_it_began_with() -> None:
    new, again = (Agent(Spec(), Config(critic_depth=4, normalize_observations=True)) for _ in range(2))
    assert not new.networks.inputs.fitted
    new.begin_with(trained().state_dict())
    again.load_state_dict(new.state_dict())
    for agent in (new, again):
        agent.update(make_batch(8))
    assert torch.equal(again.state_dict()["inputs.observation"], new.state_dict()["inputs.observation"])


def test_the_target_of_an_actor_is_of_the_actor() -> None:
    settings: dict[str, Any] = {"algorithm": "td3", "num_critics": 2, "critic_depth": 4}
    old, new = Agent(Spec(), Config(**settings, seed=1)), Agent(Spec(), Config(**settings))
    source, before = old.state_dict(), new.state_dict()
    new.begin_with(source, "actor")
    state = new.state_dict()
    targets = [name for name in state if name.startswith("target.")]
    of_actor = [name for name in targets if name.startswith("target.actor.")]
    assert of_actor
    assert all(torch.equal(state[name], (source if name in of_actor else before)[name]) for name in targets)


def test_other_shapes_are_refused_and_nothing_is_changed() -> None:
    new = Agent(Spec(), Config(critic_depth=4, normalize_observations=True, width=16))
    before = new.state_dict()
    with pytest.raises(ValueError, match=r"does not fit this agent: .*expected"):
        new.begin_with(trained().state_dict())
    assert all(torch.equal(tensor, before[name]) for name, tensor in new.state_dict().items())


def test_a_run_from_a_run(tiny: Tiny) -> None:
    first = start(tiny("first"))
    assert first.run_dir is not None
    left = safetensors.torch.load_file(checkpoint.latest(Path(first.run_dir)) / "agent.safetensors")

    reporter = Quiet()
    reporter.stop_when = lambda progress: progress.updates == 1
    second = start(tiny("second", init_from=str(first.run_dir), seed=3, learning_rate=1e-12), reporter)
    begun = safetensors.torch.load_file(checkpoint.latest(Path(str(second.run_dir))) / "agent.safetensors")
    # One update by steps of 1e-12 later, these are the weights that were left.
    for name, tensor in left.items():
        if name.startswith(("actor.", "state_action_encoder.", "goal_encoder.")):
            torch.testing.assert_close(begun[name], tensor, atol=1e-9, rtol=0)
    # Resuming goes on with its own.
    assert resume(second.run_dir).updates == 40


def test_what_cannot_be_taken_is_refused_before_there_is_a_run(tiny: Tiny, tmp_path: Path) -> None:
    first = start(tiny("first"))
    with pytest.raises(ConfigError, match=r"its networks do not fit these .*give the depth, width"):
        start(tiny("second", init_from=str(first.run_dir), width=32))
    with pytest.raises(CheckpointError, match="nowhere"):
        start(tiny("second", init_from=str(tmp_path / "nowhere")))
    with pytest.raises(ConfigError, match="init is what is taken of another run: give one"):
        start(tiny("second", init="encoders"))
    assert not (tmp_path / "second").exists()
