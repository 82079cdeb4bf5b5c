"""What each of the two processes does that test_distributed.py starts: `several_ranks.py FOLDER`, in which it reports.

All of it in one process, as starting one costs more than what it does here. In the last run rank 1 is killed.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import safetensors.torch
import short_crl
import torch
from conftest import TINY, Quiet
from test_agent import Config, Spec
from test_commanded_negatives import KINDS as AGAINST_COMMANDED
from test_commanded_negatives import Commanded
from test_commanded_negatives import batch as commanded_batch
from test_datasets import SIZES, walked

from crl import datasets, envs, losses, trainer
from crl.agent import Agent
from crl.config import TrainConfig
from crl.ranks import join
from crl.trainer import Trainer, train

ROWS = 256
ACTOR_GOALS = ("future", "random", "mixture")
KINDS = [
    *((loss, goals, 0.0) for loss in losses.CONTRASTIVE_LOSSES for goals in ACTOR_GOALS),
    *((loss, "commanded", 0.3) for loss in AGAINST_COMMANDED),
]
"""Objectives, the actor's goals, the weight of commanded goals as negatives."""
STOP_AFTER = 18
"""Updates: within a round of 4."""


def make_agent(kind: tuple[str, str, float], **options: Any) -> Agent:
    loss, goals, weight = kind
    return Agent(Spec(), Config(objective=loss, actor_goals=goals, commanded_negatives=weight), **options)


def learnt(agent: Agent, batch: Commanded) -> dict[str, torch.Tensor]:
    """The gradient of an update on `batch`, and what the update measured."""
    metrics = agent.update(batch)
    return {**{name: p.grad for name, p in agent._parameters.items() if p.grad is not None}, **metrics}


def report(folder: Path, name: str, value: Any) -> None:
    (folder / f"{name}.rank{os.environ['RANK']}.json").write_text(json.dumps(value))


def refused(call: Callable[[], Any]) -> str:
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "not refused"


class Recording(Trainer):
    """Leaves the state of this rank's agent in the run directory."""

    def run(self) -> None:
        super().run()
        safetensors.torch.save_file(self.agent.state_dict(), self.run_dir / f"agent{self.ranks.rank}.safetensors")


class Astray(Trainer):
    """One bit of one weight of rank 1 flips, after the first round of updates."""

    def log(self) -> None:
        super().log()
        if self.ranks.rank == 1 and self.progress.updates == 4:
            with torch.no_grad():
                next(self.agent.networks.parameters()).view(torch.int32).view(-1)[0] ^= 1


class Full(Trainer):
    """The disk of rank 1 is full when the second checkpoint is written."""

    def save(self) -> None:
        if self.ranks.rank == 1 and self.progress.env_steps == 400:
            self.buffer = SimpleNamespace(save=full)  # type: ignore[assignment]
        super().save()


def full(path: Path) -> None:
    raise OSError(28, "No space left on device")


def main(folder: Path) -> None:
    def start(
        name: str,
        kind: type[Trainer] = Recording,
        stop_after: int = 0,
        sized: Mapping[str, Any] = TINY,
        **changes: Any,
    ) -> Any:
        reporter = Quiet()
        reporter.stop_when = lambda progress: progress.updates == stop_after and os.environ["RANK"] == "1"
        trainer.Trainer = kind  # type: ignore[misc]
        settings = TrainConfig(**{**sized, "num_eval_episodes": 6, **changes}, run_dir=str(folder / name))
        return train(settings, reporter=reporter, stop=reporter.stop)

    envs.register(short_crl.NAME, short_crl.make)
    own = commanded_batch(rows=ROWS)
    with join() as ranks:
        for name, column in vars(own).items():
            setattr(own, name, ranks.own(column))
        for kind in KINDS:
            found = learnt(make_agent(kind, ranks=ranks), own)
            path = folder / f"{kind[0]}-{kind[1]}.rank{ranks.rank}.safetensors"
            safetensors.torch.save_file({name: x.contiguous() for name, x in found.items()}, path)
        if ranks.rank == 0:
            datasets.write(folder / "walks.safetensors", walked(), env=short_crl.NAME, env_options={})

    mixed = {"objective": "symmetric_infonce", "actor_goals": "mixture", "num_action_candidates": 2}
    result = start("straight", **mixed)
    assert result.evaluation is not None
    report(folder, "straight", [result.env_steps, result.updates, result.evaluation.metrics()])
    result = start("stopped", stop_after=STOP_AFTER, **mixed)
    report(folder, "stopped", [result.updates, result.interrupted])
    train(resume=folder / "stopped", reporter=Quiet())

    offline = {"dataset": str(folder / "walks.safetensors")}
    result = start("offline", sized=SIZES, **offline)
    report(folder, "offline", [result.env_steps, result.updates])
    result = start("offline_stopped", stop_after=STOP_AFTER, sized=SIZES, **offline)
    report(folder, "offline_stopped", [result.updates, result.interrupted])
    train(resume=folder / "offline_stopped", reporter=Quiet())

    report(folder, "uneven", refused(lambda: start("uneven", num_envs=5, batch_size=17)))
    report(folder, "in_use", refused(lambda: start("straight")))
    report(folder, "astray", refused(lambda: start("astray", Astray)))
    report(folder, "full", refused(lambda: start("full", Full)))
    report(folder, "killed", refused(lambda: start("killed", total_env_steps=10**6)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
