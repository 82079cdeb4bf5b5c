"""Metrics: means without host synchronisation, metrics.csv, TensorBoard events."""

import csv
import json
import math
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crl.errors import CheckpointError
from crl.metrics import METRICS, MetricsWriter, RunningMean, read_metrics


def scalars(**values: float) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value) for name, value in values.items()}


def test_the_mean_is_over_updates_and_starts_anew() -> None:
    means = RunningMean()
    assert means.compute() == {}
    for loss in (1.0, 2.0, 6.0):
        means.add(scalars(loss=loss, accuracy=loss / 2))
    assert means.compute() == {"loss": 3.0, "accuracy": 1.5}
    assert means.compute() == {}
    means.add(scalars(loss=5.0, accuracy=0.0))
    assert means.compute()["loss"] == 5.0


def test_sums_are_float64() -> None:
    means = RunningMean()
    for value in (2.0**24, 1.0, 1.0):  # in float32 the ones would be lost
        means.add(scalars(loss=value))
    assert means.compute()["loss"] == (2**24 + 2) / 3


def test_metrics_do_not_keep_the_graph_of_the_loss() -> None:
    means, weight = RunningMean(), torch.ones((), requires_grad=True)
    means.add({"loss": weight * 2})
    assert means.total is not None
    assert not means.total.requires_grad


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20), st.integers(0, 20))
def test_means_go_on_through_json_bit_for_bit(losses: list[float], cut: int) -> None:
    straight, before, after = RunningMean(), RunningMean(), RunningMean()
    for loss in losses:
        straight.add(scalars(loss=loss))
    for loss in losses[:cut]:
        before.add(scalars(loss=loss))
    after.load_state_dict(json.loads(json.dumps(before.state_dict())), "cpu")
    for loss in losses[cut:]:
        after.add(scalars(loss=loss))
    assert after.compute() == straight.compute()


# --- metrics.csv ------------------------------------------------------------------------------------------------------


def row(env_steps: int, updates: int, **more: float) -> dict[str, float]:
    return {"env_steps": env_steps, "updates": updates, "wall_time": 0.5, **more}


def test_a_row_holds_what_it_measures_and_no_more(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path) as writer:
        writer.write(row(10, 0))
        writer.write(row(20, 4, **{"train/critic_loss": 0.1}))
    with (tmp_path / "metrics.csv").open(newline="") as file:
        assert next(csv.reader(file)) == list(METRICS)
    assert read_metrics(tmp_path / "metrics.csv") == [row(10, 0), row(20, 4, **{"train/critic_loss": 0.1})]


@given(st.floats(allow_nan=False))
def test_numbers_are_written_in_full(tmp_path_factory: pytest.TempPathFactory, value: float) -> None:
    directory = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crl.metrics._event_writer", lambda *_: None)  # a file for each example would be slow
        with MetricsWriter(directory) as writer:
            writer.write(row(1, 1, **{"train/alpha": value}))
    assert read_metrics(directory / "metrics.csv")[0]["train/alpha"] == value


def test_a_name_without_an_explanation_is_refused(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path) as writer, pytest.raises(ValueError, match="train/novelty"):
        writer.write(row(1, 1, **{"train/novelty": 0.0}))


def test_every_row_is_on_disk_at_once(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path) as writer:
        writer.write(row(10, 0))
        assert len(read_metrics(tmp_path / "metrics.csv")) == 1


def counts(path: Path) -> list[tuple[float, float]]:
    return [(row["env_steps"], row["updates"]) for row in read_metrics(path / "metrics.csv")]


def test_resuming_drops_what_will_be_written_anew(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path) as writer:
        for steps, updates in ((10, 0), (20, 4), (20, 4), (30, 8), (40, 12)):
            writer.write(row(steps, updates))
    with MetricsWriter(tmp_path, resume_at=(30, 8)) as writer:
        writer.write(row(40, 12))
    assert counts(tmp_path) == [(10, 0), (20, 4), (20, 4), (30, 8), (40, 12)]
    # A checkpoint made after 2 of the updates at 30 env steps: that row is not yet written then.
    with MetricsWriter(tmp_path, resume_at=(30, 6)):
        pass
    assert counts(tmp_path) == [(10, 0), (20, 4), (20, 4)]


def test_resuming_drops_a_row_that_a_crash_cut_short(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path) as writer:
        writer.write(row(10, 0))
        writer.write(row(20, 4))
    path = tmp_path / "metrics.csv"
    path.write_bytes(path.read_bytes()[:-10])
    with MetricsWriter(tmp_path, resume_at=(20, 4)):
        pass
    assert counts(tmp_path) == [(10, 0)]


def test_resuming_without_the_file_starts_one(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path, resume_at=(20, 4)) as writer:
        writer.write(row(30, 8))
    assert counts(tmp_path) == [(30, 8)]


@pytest.mark.parametrize("content", ["", "env_steps,loss\n1,2\n"])
def test_resuming_another_version_s_file_is_refused_and_leaves_it(tmp_path: Path, content: str) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(content)
    with pytest.raises(CheckpointError, match=r"metrics\.csv has other columns"):
        MetricsWriter(tmp_path, resume_at=(20, 4))
    assert path.read_text() == content


def test_resuming_takes_over_a_file_that_measured_less(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("env_steps,updates,eval/success_rate\n10,2,0.5\n20,4,\n30,8,0.7\n")
    with MetricsWriter(tmp_path, resume_at=(20, 4)) as writer:
        writer.write(row(40, 9))
    assert path.read_text().splitlines()[0] == ",".join(METRICS)
    assert read_metrics(path)[:2] == [
        {"env_steps": 10, "updates": 2, "eval/success_rate": 0.5},
        {"env_steps": 20, "updates": 4},
    ]
    assert counts(tmp_path) == [(10, 2), (20, 4), (40, 9)]


# --- TensorBoard ------------------------------------------------------------------------------------------------------


def test_tensorboard_gets_the_same_numbers(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with MetricsWriter(tmp_path) as writer:
        for steps in (10, 20, 30):
            writer.write(row(steps, steps, **{"eval/success_rate": steps / 100}))
    time.sleep(1)  # event files are ordered by their second
    with MetricsWriter(tmp_path, resume_at=(20, 20)) as writer:
        writer.write(row(30, 30, **{"eval/success_rate": 0.9}))
    events = accumulator.EventAccumulator(str(tmp_path)).Reload().Scalars("eval/success_rate")
    found = {event.step: event.value for event in events}
    assert found.keys() == {10, 20, 30}
    for step, value in {10: 0.1, 20: 0.2, 30: 0.9}.items():
        assert math.isclose(found[step], value, rel_tol=1e-6)
