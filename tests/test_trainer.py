"""Training runs: what they count, write, say and refuse. (Stopping and going on: test_resume.py.)"""

import csv
import math
import resource
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from conftest import TINY, Quiet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crl import checkpoint, config, resolution, trainer
from crl.config import TrainConfig
from crl.errors import CheckpointError, ConfigError
from crl.metrics import METRICS, read_metrics
from crl.trainer import Progress, Trainer, TrainResult, train

Tiny = Callable[..., TrainConfig]


def run(settings: TrainConfig) -> TrainResult:
    return train(settings, reporter=Quiet())


def rows(directory: str | Path | None) -> list[dict[str, float]]:
    """What is reproducible of metrics.csv."""
    return [
        {name: value for name, value in row.items() if name != "wall_time" and not name.startswith("speed/")}
        for row in read_metrics(Path(directory or "") / "metrics.csv")
    ]


def weights(directory: str | Path | None) -> bytes:
    return (checkpoint.latest(Path(directory or "")) / "agent.safetensors").read_bytes()


OF_BASELINES = ("train/q_", "train/reward_", "train/critics_", "train/model_")
OF_OTHER_OBJECTIVES = {"train/importance_weight", "train/commanded_reached"}

# --- what a run leaves ------------------------------------------------------------------------------------------------


def test_a_run_directory(tiny: Tiny) -> None:
    settings = tiny(keep_checkpoints=1, block_metrics=True, bc_coefficient=0.1)
    result = run(settings)
    assert (result.env_steps, result.updates, result.interrupted) == (400, 40, False)
    assert result.run_dir == Path(settings.run_dir)
    kinds = sorted(path.name.split(".out.")[0] for path in result.run_dir.iterdir())
    assert kinds == [".lock", "checkpoints", "config.yaml", "events", "metrics.csv"]
    # The resolved configuration reads back to an equal one.
    again = config.from_mapping(config.read_settings(result.run_dir / "config.yaml"))
    assert again == resolution.resolve(settings, device="cpu", num_cores=1).config
    # Every column, every number finite.
    with (result.run_dir / "metrics.csv").open(newline="") as file:
        assert next(csv.reader(file)) == list(METRICS)
    found = read_metrics(result.run_dir / "metrics.csv")
    assert all(math.isfinite(value) for row in found for value in row.values())
    others = OF_OTHER_OBJECTIVES | {name for name in METRICS if name.startswith((*OF_BASELINES, "probe/"))}
    assert {name for row in found for name in row} == set(METRICS) - others
    assert all("wall_time" in row for row in found)
    # A row per round, and one per evaluation right after its round.
    counts = [(row["env_steps"], row["updates"], "eval/success_rate" in row) for row in found]
    rounds = [(40 * n, 4 * n, False) for n in range(1, 11)]
    assert counts == [*rounds[:5], (200, 20, True), *rounds[5:], (400, 40, True)]
    assert result.evaluation is not None
    assert result.evaluation.metrics() == {k: v for k, v in found[-1].items() if k.startswith("eval/")}
    # The newest checkpoint alone, as asked.
    assert [path.name for path in checkpoint.complete(result.run_dir)] == ["step_400"]


def test_the_last_two_checkpoints_are_kept(tiny: Tiny) -> None:
    result = run(tiny(eval_interval=80))
    assert [path.name for path in checkpoint.complete(result.run_dir)] == ["step_320", "step_400"]


def test_nothing_is_learnt_before_learning_starts(tiny: Tiny) -> None:
    found = rows(run(tiny(learning_starts=200)).run_dir)
    assert [row["updates"] for row in found if "eval/success_rate" not in row] == [0, 0, 0, 0, 4, 8, 12, 16, 20, 24]
    assert ["train/critic_loss" in row for row in found[:6]] == [False] * 4 + [True, False]


# --- reproducible -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_action_candidates": 3, "prefill": "uniform", "network": "mlp", "discount": "scheduled"},
        {"goal_filter": 0.1, "discount": "fitted"},
    ],
)
def test_the_same_seed_gives_the_same_run_bit_for_bit(tiny: Tiny, settings: dict[str, Any]) -> None:
    one, two, other = (tiny(name, seed=seed, **settings) for name, seed in (("one", 1), ("two", 1), ("other", 2)))
    for each in (one, two, other):
        run(each)
    assert rows(one.run_dir) == rows(two.run_dir)
    assert weights(one.run_dir) == weights(two.run_dir)
    assert weights(one.run_dir) != weights(other.run_dir)
    assert rows(one.run_dir) != rows(other.run_dir)


def test_global_random_numbers_are_neither_used_nor_needed(tiny: Tiny) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    run(tiny("one"))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    run(tiny("two"))
    assert rows(tiny("one").run_dir) == rows(tiny("two").run_dir)


@pytest.mark.parametrize("candidates", [1, 3])
def test_evaluating_more_changes_nothing_in_training(tiny: Tiny, candidates: int) -> None:
    seldom = tiny("seldom", eval_interval=400, num_action_candidates=candidates)
    often = tiny("often", eval_interval=40, num_eval_episodes=7, num_action_candidates=candidates)
    run(seldom)
    run(often)
    assert weights(seldom.run_dir) == weights(often.run_dir)
    trained = [[row for row in rows(c.run_dir) if "eval/success_rate" not in row] for c in (seldom, often)]
    assert trained[0] == trained[1]


# --- sizes and the ratio of steps to updates --------------------------------------------------------------------------


def rounds(settings: TrainConfig) -> tuple[int, int]:
    """Rounds in all, and rounds with updates, of a run."""
    round_steps = settings.num_envs * settings.unroll_length
    first = max(settings.learning_starts, config.ROWS_TO_LEARN * settings.num_envs)
    total = math.ceil(settings.total_env_steps / round_steps)
    return total, total - math.ceil(first / round_steps) + 1


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    num_envs=st.integers(1, 9),
    unroll_length=st.integers(1, 33),
    batch_size=st.integers(2, 33),
    updates_per_collect=st.integers(1, 5),
    capacity=st.integers(3, 40),
    asynchronous=st.booleans(),
)
def test_any_positive_sizes_work(
    short_world: None,
    tmp_path_factory: pytest.TempPathFactory,
    num_envs: int,
    unroll_length: int,
    batch_size: int,
    updates_per_collect: int,
    capacity: int,
    asynchronous: bool,
) -> None:
    needed = 2 * max(num_envs * unroll_length, 3 * num_envs)
    changes = {
        "num_envs": num_envs,
        "unroll_length": unroll_length,
        "batch_size": batch_size,
        "updates_per_collect": updates_per_collect,
        "buffer_capacity": capacity * num_envs + num_envs // 2,
        "learning_starts": 0,
        "total_env_steps": needed,
        "eval_interval": needed,
        "num_eval_episodes": 1,
        "asynchronous": asynchronous,
        "run_dir": str(tmp_path_factory.mktemp("sizes") / "run"),
    }
    result = run(TrainConfig(**{**TINY, **changes}))
    total, learning = rounds(TrainConfig(**{**TINY, **changes}))
    assert result.env_steps == total * num_envs * unroll_length
    assert result.updates == learning * updates_per_collect


def test_async_holds_the_ratio_exactly_in_every_round(tiny: Tiny) -> None:
    settings = tiny(asynchronous=True, total_env_steps=800)
    result = run(settings)
    found = [row for row in rows(result.run_dir) if "eval/success_rate" not in row]
    # The first round of steps has no updates beside it; from then on 40 steps and 4 updates go together.
    assert [row["env_steps"] for row in found] == [40 * n for n in range(1, 21)]
    assert [row["updates"] for row in found] == [4 * n for n in range(1, 21)]
    assert (result.updates / result.env_steps) == pytest.approx(4 / 40, rel=0.05)
    assert not result.interrupted


def test_async_acts_on_weights_of_the_round_before(tiny: Tiny) -> None:
    """The collector's weights change between rounds, never while it acts."""
    seen: set[bytes] = set()

    class Watching(Trainer):
        def collect(self) -> int:
            policy = self.weights
            assert policy is not None

            def fingerprint() -> bytes:
                return torch.cat([p.flatten() for p in policy._networks.parameters()]).numpy().tobytes()

            before = fingerprint()
            steps = super().collect()
            assert fingerprint() == before
            seen.add(before)
            return steps

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "Trainer", Watching)
        run(tiny(asynchronous=True))
    assert len(seen) == 10  # rounds


def test_async_divides_the_threads_until_the_round_is_collected(tiny: Tiny) -> None:
    """With 8: 2 collect, 6 learn beside them, and 8 learn when that is done."""
    seen: dict[str, list[int]] = {"learning beside": [], "learning alone": [], "collecting": [], "prefill": []}
    begun = threading.Event()

    class Watching(Trainer):
        def collect(self) -> int:
            if not self.ready:
                seen["prefill"].append(torch.get_num_threads())
                return super().collect()
            seen["collecting"].append(torch.get_num_threads())
            assert self.collector.env.num_threads == 2
            begun.wait(20)
            return super().collect()

        def learn(self, collecting: Future[int] | None) -> None:
            update = self.agent.update
            first = True

            def watched(batch: Any) -> dict[str, torch.Tensor]:
                nonlocal first
                if collecting:
                    seen["learning beside" if first else "learning alone"].append(torch.get_num_threads())
                    begun.set()
                    collecting.result(20)
                    first = False
                return update(batch)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(self.agent, "update", watched)
                super().learn(collecting)
            begun.clear()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "Trainer", Watching)
        run(tiny(asynchronous=True, num_threads=8, num_envs=8))
    assert {name: set(counts) for name, counts in seen.items()} == {
        "learning beside": {6},
        "learning alone": {8},
        "collecting": {2},
        "prefill": {8},
    }


# --- what it says -----------------------------------------------------------------------------------------------------


@pytest.fixture
def standing(tiny: Tiny, tmp_path: Path) -> Trainer:
    """A Trainer that has made many updates, on batches of 16: chance is ln 16 = 2.77."""
    return many_updates(tiny(), tmp_path)


def many_updates(of: config.TrainConfig, tmp_path: Path) -> Trainer:
    settings = resolution.resolve(of, device="cpu", num_cores=1).config
    (tmp_path / "run").mkdir()
    reporter = Quiet()
    made = Trainer(settings, tmp_path / "run", reporter, reporter.stop, None)
    made.progress = Progress(updates=trainer.CHANCE_UPDATES, gamma=0.99)
    return made


def warnings(of: Trainer, *losses: float) -> int:
    for loss in losses:
        of._warn_of_chance({"train/contrastive_loss": loss})
    return str(of.reporter.text()).count("warning: the critic sits at chance")  # type: ignore[attr-defined]


def test_a_critic_at_chance_is_told_once(standing: Trainer) -> None:
    with standing:
        assert warnings(standing, 2.76, 2.77, 2.78) == 1
        assert "--gamma 0.99" in standing.reporter.text()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("objective", "chance"), [("binary_nce", 0.234), ("c_learning", 1.386), ("nce_c_learning", 2.773)]
)
def test_every_objective_has_its_own_chance(tiny: Tiny, tmp_path: Path, objective: str, chance: float) -> None:
    """The entropy of a coin of 1/16; 2 ln 2 and 4 ln 2."""
    with many_updates(tiny(objective=objective, energy="dot"), tmp_path) as made:
        assert warnings(made, 0.85 * chance) == 0
        assert warnings(made, 0.95 * chance) == 1


def test_what_compares_no_goals_is_never_at_chance(tiny: Tiny, tmp_path: Path) -> None:
    with many_updates(tiny(algorithm="gcbc", representation_dim=config.AUTO), tmp_path) as made:
        assert warnings(made, 5.0) == 0


def test_a_critic_that_learns_is_not(standing: Trainer) -> None:
    with standing:
        assert warnings(standing, 2.0, 1.5, 0.1) == 0
        standing._warn_of_chance({"env_steps": 10.0})  # a round without updates
        standing.progress.updates = trainer.CHANCE_UPDATES - 1  # too early to tell
        assert warnings(standing, 2.77) == 0


def test_goals_drawn_at_random_end_in_that_warning(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "CHANCE_UPDATES", 150)
    reporter = Quiet()
    train(tiny(goals="random", updates_per_collect=20, total_env_steps=400), reporter=reporter)
    assert "the critic sits at chance" in reporter.text()


def test_what_a_person_sees(tiny: Tiny) -> None:
    reporter = Quiet()
    settings = tiny("a[/b]:smile:")
    train(settings, reporter=reporter)
    lines = reporter.text().splitlines()
    assert any(line.split() == ["gamma", "0.99", "sizes", "for", "cpu"] for line in lines)
    assert f"run directory: {settings.run_dir}" in lines  # as it is: no markup, no emoji
    assert sum(line.startswith("eval at 200 steps: success ") for line in lines) == 1
    first = next(line for line in lines if line.startswith("40/400 steps | 4 updates | "))
    for part in ("critic ", "accuracy ", "actor ", "steps/s", "updates/s", " left"):
        assert part in first


# --- what it refuses, and what a failure leaves -----------------------------------------------------------------------


def test_settings_or_resume(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="either settings or resume"):
        train()
    with pytest.raises(ConfigError, match="either settings or resume"):
        train(tiny(), resume=tmp_path)


def test_a_directory_with_something_in_it_is_left_untouched(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match=r"run is not empty: choose another, or use --resume"):
        run(tiny())
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]
    assert (tmp_path / "run" / "thesis.txt").read_text() == "years of work"


def test_a_place_that_cannot_be_written_is_named(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/run cannot be written"):
        run(tiny("file/run"))


@pytest.mark.parametrize("device", ["gpu", "cpu:1", "meta", "cuda:x", "", "cuda:99"])
def test_a_device_that_is_not_there(tiny: Tiny, tmp_path: Path, device: str) -> None:
    with pytest.raises(ConfigError, match="device"):
        run(tiny(device=device))
    assert not (tmp_path / "run").exists()


def test_a_full_disk_is_one_error_and_spares_the_earlier_checkpoint(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operating system refuses files over a size that only the buffer, growing, comes to."""
    settings = tiny(width=8, unroll_length=20, buffer_capacity=40_000, total_env_steps=4000, eval_interval=400)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    try:
        with pytest.raises(CheckpointError) as error:
            run(settings)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "cannot be written" in str(error.value)
    assert "\n" not in str(error.value)
    spared = checkpoint.latest(Path(settings.run_dir))
    assert {path.name for path in spared.parent.iterdir()} <= {f"step_{400 * n}" for n in range(1, 10)}


@pytest.mark.parametrize(
    "file", ["agent.safetensors", "collector.safetensors", "buffer.crlb", "exploration.safetensors", "state.json"]
)
def test_every_file_of_a_checkpoint_may_fail(tiny: Tiny, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    """Each writer in turn is given a path in a directory that is not there."""
    save = checkpoint.save

    def astray(run: Path, step: int, files: Any, **options: Any) -> Path:
        write = files[file]
        failing = {**files, file: lambda path: write(path.parent / "nowhere" / path.name)}
        return save(run, step, failing if step > 200 else files, **options)

    monkeypatch.setattr(checkpoint, "save", astray)
    settings = tiny()
    with pytest.raises(CheckpointError, match=r"step_400 cannot be written: .*Earlier checkpoints are intact"):
        run(settings)
    assert [path.name for path in (Path(settings.run_dir) / "checkpoints").iterdir()] == ["step_200"]
    checkpoint.latest(Path(settings.run_dir))


def test_safetensors_still_has_an_error_of_its_own() -> None:
    assert not issubclass(safetensors.SafetensorError, OSError)  # else checkpoint.writer need not turn it into one
