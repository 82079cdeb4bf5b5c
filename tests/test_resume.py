"""A run that was stopped or killed, wherever it was, ends as if it had not been."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import short_crl
from conftest import TINY_OPTIONS, Quiet
from test_trainer import rows

from crl import checkpoint, config, trainer
from crl.config import TrainConfig
from crl.errors import CheckpointError, ConfigError
from crl.evaluation import evaluate
from crl.trainer import TrainResult, train

Tiny = Callable[..., TrainConfig]
FILES = ("agent.safetensors", "collector.safetensors", "buffer.crlb", "exploration.safetensors", "state.json")


def start(settings: TrainConfig, reporter: Quiet | None = None) -> TrainResult:
    reporter = reporter or Quiet()
    return train(settings, reporter=reporter, stop=reporter.stop)


def resume(directory: str | Path | None, reporter: Quiet | None = None, **changes: Any) -> TrainResult:
    reporter = reporter or Quiet()
    return train(resume=str(directory), reporter=reporter, stop=reporter.stop, **changes)


def outcome(directory: str | Path | None) -> dict[str, Any]:
    """All that must not depend on interruptions: the newest checkpoint's bytes and the rows of metrics.csv."""
    saved = checkpoint.latest(Path(str(directory)))
    state = json.loads((saved / "state.json").read_text())
    del state["progress"]["wall_time"]
    names = (name for name in FILES if name != "state.json")
    return {"rows": rows(directory), "state": state, **{name: (saved / name).read_bytes() for name in names}}


def assert_same(directory: str | Path | None, other: str | Path | None) -> None:
    one, two = outcome(directory), outcome(other)
    for name in one:
        assert one[name] == two[name], name


@pytest.mark.parametrize(
    "stop_at", [4, 6, 19, 20, 21, 39], ids=lambda n: f"after update {n}"
)  # 4 updates a round, evaluations after 20 and 40: ends of rounds, within them, around an evaluation
def test_stopped_and_resumed_is_as_if_never_stopped(tiny: Tiny, stop_at: int) -> None:
    start(tiny("straight"))
    reporter = Quiet()
    reporter.stop_when = lambda progress: progress.updates == stop_at
    stopped = start(tiny("stopped"), reporter)
    assert stopped.interrupted
    assert stopped.updates == stop_at
    done = resume(stopped.run_dir)
    assert (done.interrupted, done.env_steps, done.updates) == (False, 400, 40)
    assert_same(tiny("straight").run_dir, done.run_dir)


@pytest.mark.parametrize("settings", [{"num_action_candidates": 2}, {"prefill": "uniform", "learning_starts": 200}])
def test_stopped_again_and_again(tiny: Tiny, settings: dict[str, Any]) -> None:
    start(tiny("straight", **settings))
    parts, done = 1, start(tiny("parts", **settings), stopping_every(3))
    while done.interrupted:
        done, parts = resume(done.run_dir, stopping_every(3)), parts + 1
    assert parts > 6
    assert_same(tiny("straight").run_dir, done.run_dir)


def stopping_every(updates: int) -> Quiet:
    reporter = Quiet()
    reporter.stop_when = lambda progress: progress.updates % updates == 0
    return reporter


def test_stopped_before_anything_was_done(tiny: Tiny) -> None:
    start(tiny("straight"))
    reporter = Quiet()
    reporter.stop.set()
    stopped = start(tiny("stopped"), reporter)
    assert (stopped.env_steps, stopped.interrupted) == (0, True)
    assert_same(tiny("straight").run_dir, resume(stopped.run_dir).run_dir)


def test_stopped_within_an_evaluation(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    start(tiny("straight"))
    reporter = Quiet()

    def interrupted(policy: Any, env: Any, **options: Any) -> Any:
        reporter.stop.set()
        return evaluate(policy, env, **options)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "evaluate", interrupted)
        stopped = start(tiny("stopped"), reporter)
    assert (stopped.env_steps, stopped.evaluation) == (200, None)
    assert_same(tiny("straight").run_dir, resume(stopped.run_dir).run_dir)


def test_stopped_within_the_last_evaluation(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    start(tiny("straight"))
    reporter = Quiet()
    stop_last = reporter.evaluated
    monkeypatch.setattr(reporter, "row", lambda row, left: reporter.stop.set() if row["env_steps"] == 400 else None)
    stopped = start(tiny("stopped"), reporter)
    assert callable(stop_last)
    assert (stopped.env_steps, stopped.interrupted) == (400, True)
    assert_same(tiny("straight").run_dir, resume(stopped.run_dir).run_dir)


def test_rows_are_not_doubled_when_a_resumed_run_is_killed(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint made inside a round, that round's row written, then a kill before the next checkpoint."""
    start(tiny("straight"))
    reporter = Quiet()
    reporter.stop_when = lambda progress: progress.updates == 18
    stopped = start(tiny("stopped"), reporter)

    class Killed(BaseException):
        pass

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", killed)
        with pytest.raises(Killed):
            resume(stopped.run_dir)
    assert rows(stopped.run_dir)[-1].get("eval/success_rate") is not None
    assert_same(tiny("straight").run_dir, resume(stopped.run_dir).run_dir)


def test_a_finished_run_stays_as_it_is(tiny: Tiny) -> None:
    done = start(tiny())
    before = outcome(done.run_dir)
    again = resume(done.run_dir)
    assert (again.interrupted, again.env_steps, again.evaluation) == (False, 400, None)
    assert outcome(done.run_dir) == before


def test_a_finished_run_can_be_made_longer(tiny: Tiny) -> None:
    start(tiny("straight", total_env_steps=800))
    start(tiny("longer"))
    assert resume(tiny("longer").run_dir, total_env_steps=800).env_steps == 800
    assert_same(tiny("straight").run_dir, tiny("longer").run_dir)


def test_what_was_changed_when_going_on_is_remembered(tiny: Tiny) -> None:
    reporter = Quiet()
    reporter.stop_when = lambda progress: progress.updates == 50
    start(tiny())
    assert resume(tiny().run_dir, reporter, total_env_steps=800).interrupted
    assert resume(tiny().run_dir).env_steps == 800


def test_what_decides_the_result_cannot_change(tiny: Tiny) -> None:
    start(tiny())
    before = (Path(tiny().run_dir) / "config.yaml").read_text()
    for name, value in (("seed", 3), ("env", "reacher"), ("batch_size", 8), ("run_dir", "elsewhere")):
        with pytest.raises(ConfigError, match=rf"{name} of a run cannot change; these can: total_env_steps"):
            resume(tiny().run_dir, **{name: value})
    assert (Path(tiny().run_dir) / "config.yaml").read_text() == before


def test_async_goes_on_too(tiny: Tiny) -> None:
    reporter = Quiet()
    reporter.stop_when = lambda progress: progress.updates == 18
    stopped = start(tiny(asynchronous=True), reporter)
    done = resume(stopped.run_dir)
    assert (done.env_steps, done.updates, done.interrupted) == (400, 40, False)
    assert [r["env_steps"] for r in rows(done.run_dir) if "eval/success_rate" not in r] == list(range(40, 401, 40))


# --- what cannot be read ----------------------------------------------------------------------------------------------


def test_what_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere cannot be loaded: no such directory"):
        resume(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="no complete checkpoint yet"):
        resume(tmp_path)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("content", [b"", b"{}", b"\x08\0\0\0\0\0\0\0{}      ", b"\xff" * 64], ids=range(4))
def test_content_that_is_wrong_though_its_digest_is_right(tiny: Tiny, file: str, content: bytes) -> None:
    done = start(tiny(total_env_steps=40, eval_interval=40))
    saved = checkpoint.latest(done.run_dir)
    (saved / file).write_bytes(content)
    manifest = json.loads((saved / "MANIFEST.json").read_text())
    manifest["files"][file] = checkpoint._fingerprint(saved / file)
    (saved / "MANIFEST.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=r"step_40.* cannot be loaded") as error:
        resume(done.run_dir)
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_other_sizes_is_refused(tiny: Tiny) -> None:
    done = start(tiny())
    path = done.run_dir / "config.yaml"
    for change in ({"width": 32}, {"num_envs": 5}):
        whole = path.read_text()
        config.write(config.from_mapping({**config.read_settings(path), **change}), path)
        with pytest.raises(CheckpointError, match="cannot be loaded"):
            resume(done.run_dir)
        path.write_text(whole)


# --- real kills -------------------------------------------------------------------------------------------------------


def command(*arguments: str) -> list[str]:
    return [sys.executable, short_crl.__file__, *arguments]


def kill_after_a_checkpoint(run: Path, options: list[str], number: signal.Signals) -> subprocess.CompletedProcess[str]:
    """Start a run in a process of its own and send it a signal once it has a checkpoint."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command("train", *options, f"--run-dir={run}"),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not checkpoint.complete(run):
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(number)
        output, errors = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


LONG = {"total_env_steps": 4000}
KILLS = 12


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_a_killed_process_goes_on_where_it_was(tiny: Tiny, tmp_path: Path, number: signal.Signals) -> None:
    run = tmp_path / "killed"
    killed = kill_after_a_checkpoint(run, [*TINY_OPTIONS, "--total-env-steps=4000"], number)
    if number is signal.SIGKILL:
        assert killed.returncode == -signal.SIGKILL
    else:
        assert killed.returncode == 130, killed.stderr
        assert f"go on with: crl train --resume {run}" in killed.stderr
        assert "Traceback" not in killed.stderr
    assert len(rows(run)) < 100  # it was not done
    done = resume(run)
    assert done.env_steps == 4000
    start(tiny("straight", **LONG))
    assert_same(tiny("straight").run_dir, run)


@pytest.mark.slow
def test_kills_at_random_moments(tiny: Tiny, tmp_path: Path) -> None:
    """Wherever `kill -9` hits, inside a checkpoint's writing too, the run goes on to the same end."""
    run, delay = tmp_path / "killed", 0.05
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    kills = 0
    first = ["train", *TINY_OPTIONS, "--total-env-steps=4000", "--eval-interval=80", f"--run-dir={run}"]
    while True:
        arguments = ["train", "--resume", str(run)] if run.exists() and checkpoint.complete(run) else first
        if arguments is first and run.exists():  # killed before it had a checkpoint
            subprocess.run(["rm", "-r", str(run)], check=True)
        with subprocess.Popen(command(*arguments), env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("run directory"):
                    break
            delay = (delay * 1.37) % 1.1
            try:
                process.wait(timeout=delay if kills < KILLS else None)
            except subprocess.TimeoutExpired:
                process.kill()
                kills += 1
                continue
        assert process.returncode == 0
        break
    assert kills > KILLS / 2  # a fast machine may be done before them all
    start(tiny("straight", total_env_steps=4000, eval_interval=80))
    assert_same(tiny("straight").run_dir, run)
