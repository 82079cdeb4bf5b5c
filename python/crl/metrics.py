"""What a run measures: the names, their meaning, and the files they go to. Reading them needs no PyTorch."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from crl.errors import CheckpointError
from crl.files import whole

if TYPE_CHECKING:
    from torch import Tensor

METRICS: Mapping[str, str] = {
    "env_steps": "environment steps so far, all worlds together; 0 in a run from a data set",
    "updates": "updates so far",
    "wall_time": "seconds of training so far, pauses between resumed parts excluded",
    "train/critic_loss": "the loss of critic or model, penalty included; mean over the round, as all of train/",
    "train/contrastive_loss": "the contrastive loss alone; chance is ln(batch size) for InfoNCE, 2 ln 2 for C-learning",
    "train/gamma": "the discount of the goals in this round",
    "train/actor_loss": "mean of alpha log pi(a|s,g) - value, by default energy(phi(s,a), psi(g)); td3: of - Q(s,g,a)",
    "train/alpha_loss": "loss of the temperature",
    "train/bc_loss": "minus the log-density of the data's actions under the policy; gcbc, or with a bc_coefficient",
    "train/alpha": "entropy temperature",
    "train/entropy": "minus the mean log-probability of the sampled actions, nats",
    "train/categorical_accuracy": "share of rows whose own goal has the highest logit",
    "train/logits_pos": "mean energy of a row and its own goal",
    "train/logits_neg": "mean energy of a row and the goals of other rows",
    "train/commanded_reached": "share of batches of which some row reached what was commanded",
    "train/importance_weight": "mean weight that C-learning's target gives to other goals; 1 is chance",
    "train/logsumexp": "mean over rows of the logsumexp of the logits",
    "train/q_mean": "sac, td3: mean over critics and rows of Q(s, g, a), the discounted steps to be spent at the goal",
    "train/reward_mean": "sac, td3: share of rows that end at the goal they are for",
    "train/critic_grad_norm": "L2 norm of the critic's gradient",
    "train/actor_grad_norm": "L2 norm of the actor's gradient",
    "train/representation_norm_state_action": "mean L2 norm of phi(s, a)",
    "train/representation_norm_goal": "mean L2 norm of psi(g)",
    **{
        f"train/{network}_{place}_{what}_norm": f"{place} residual block of {symbol}: {meaning}"
        for network, symbol in (
            ("actor", "the actor"),
            ("state_action", "phi"),
            ("goal", "psi"),
            ("critics", "the last Q"),
            ("model", "the model"),
        )
        for what, meaning in (
            ("stream", "mean L2 norm of a row behind it"),
            ("grad", "L2 norm of its weights' gradient"),
        )
        for place in ("first", "middle", "last")
    },
    "eval/success_rate": "share of episodes that reached the goal at least once",
    "eval/success_rate_low": "lower end of its 95 % Wilson interval",
    "eval/success_rate_high": "upper end of its 95 % Wilson interval",
    "eval/success_at_end": "share of episodes at the goal in their last step",
    "eval/time_at_goal": "steps of an episode at the goal, mean over episodes",
    "eval/final_distance": "distance to the goal in the last step, mean over episodes",
    "eval/success_rate_far": "eval/success_rate of the episodes whose goal was a far one of a maze",
    "eval/success_rate_far_low": "lower end of its 95 % Wilson interval",
    "eval/success_rate_far_high": "upper end of its 95 % Wilson interval",
    **{
        f"probe/{what}_q{number}": meaning.format(order)
        for what, meaning in (
            ("success", "share of probes that reached their goal, one in the {} quarter of the ways"),
            ("distance", "mean walk from start to goal of the {} quarter of the probes, m"),
        )
        for number, order in enumerate(("nearest", "second", "third", "farthest"), 1)
    },
    "explore/coverage": "share of the squares of the ground that any evaluation found a row of the buffer in",
    "explore/entropy": "entropy of the buffer's rows over these squares, over its largest: 1 is even",
    "explore/hopkins": "Hopkins statistic of their places: 0.5 is even over the ground, 1 one heap",
    "explore/psi_nearest": "mean distance from psi of a row to that of the nearest other",
    "explore/psi_spread": "root mean square distance between psi of two rows",
    "explore/nearer_than_start": "share of pairs of a row and a goal whose psi are nearer than those of start and goal",
    "explore/goal_axis_rotation": "degrees by which psi(g) has turned since the last evaluation, mean over goals",
    "speed/env_steps_per_second": "environment steps per second of wall time since the last row, learning included",
    "speed/updates_per_second": "updates per second of wall time since the last row, collecting included",
}
"""Every column of metrics.csv, in order, with its meaning."""


class RunningMean:
    """Means of 0-d device tensors over many updates. Nothing reaches the host before `compute`."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.total: Tensor | None = None
        self.count = 0

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Take in one update's metrics; the names must not change between calls."""
        import torch

        stacked = torch.stack([value.detach().to(torch.float64) for value in values.values()])
        self.names = list(values)
        self.total = stacked if self.total is None else self.total + stacked
        self.count += 1

    def wait(self) -> None:
        """Wait until the device has computed what was added: once a round, the one synchronisation of learning."""
        if self.total is not None and self.total.is_cuda:
            self.total[0].item()

    def compute(self) -> dict[str, float]:
        """The means so far as floats. Starts anew."""
        means = {} if self.total is None else dict(zip(self.names, (self.total / self.count).tolist(), strict=True))
        self.total, self.count = None, 0
        return means

    def state_dict(self) -> dict[str, Any]:
        """JSON-ready sums, so that a run resumed inside a round reports the same means."""
        return {"names": self.names, "total": [] if self.total is None else self.total.tolist(), "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any], device: str) -> None:
        """Restore what `state_dict` returned, onto `device`."""
        import torch

        self.names, self.count = list(state["names"]), int(state["count"])
        self.total = torch.tensor(state["total"], dtype=torch.float64, device=device) if self.count else None


class MetricsWriter:
    """Writes rows of METRICS to `metrics.csv` and, for TensorBoard, to event files in the run directory.

    A cell is empty where a row does not measure that column.

    Args:
        directory: the run directory.
        resume_at: when resuming, env steps and updates of the checkpoint: later rows are dropped, as they will be
            written anew.

    Raises:
        CheckpointError: when the metrics.csv to go on with is not one of this version.
    """

    def __init__(self, directory: Path, resume_at: tuple[int, int] | None = None) -> None:
        path = directory / "metrics.csv"
        if resume_at is not None and path.exists():
            _drop_rows_after(path, *resume_at)
        new = not path.exists()
        self._file = path.open("a", newline="", encoding="utf-8")
        self._csv = csv.DictWriter(self._file, fieldnames=list(METRICS))
        if new:
            self._csv.writeheader()
        self._events = _event_writer(directory, resume_at)

    def write(self, row: Mapping[str, float]) -> None:
        """Write a row; it has `env_steps` and `updates`. Raises ValueError on a name that METRICS does not explain."""
        self._csv.writerow(row)
        self._file.flush()
        for name, value in row.items():
            if self._events is not None and name != "env_steps":
                # A run from a data set makes no env steps.
                self._events.add_scalar(name, value, int(row["env_steps"] or row["updates"]))

    def close(self) -> None:
        """Flush and close all files."""
        self._file.close()
        if self._events is not None:
            self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics.csv; empty cells are left out.

    Raises:
        CheckpointError: when it cannot be read as one.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [{name: float(cell) for name, cell in row.items() if cell} for row in csv.DictReader(file)]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None


def _drop_rows_after(path: Path, env_steps: int, updates: int) -> None:
    header = list(METRICS)
    with path.open(newline="", encoding="utf-8") as file:
        found, *rows = list(csv.reader(file)) or [[]]
    if found[:2] != header[:2] or not set(found) <= set(header):  # an earlier version may have measured less
        raise CheckpointError(f"{path} has other columns than this version of crl writes: move it away to go on.")
    # A row cut short by a crash has too few cells; it is later than any checkpoint. Both counts matter: a checkpoint
    # made inside a round of updates has the env steps of that round's row, and fewer updates.
    complete = [dict(zip(found, row, strict=True)) for row in rows if len(row) == len(found)]
    kept = [row for row in complete if int(row["env_steps"]) <= env_steps and int(row["updates"]) <= updates]
    with whole(path) as place, place.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=header)
        writer.writeheader()
        writer.writerows(kept)


def _event_writer(directory: Path, resume_at: tuple[int, int] | None) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    purge = None if resume_at is None else (resume_at[0] or resume_at[1]) + 1
    return SummaryWriter(str(directory), purge_step=purge)
