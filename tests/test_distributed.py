"""One run of two processes, over gloo on the CPU: it is that of one, ends as one, fails as one and goes on as one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import several_ranks
import short_crl
import torch
from conftest import TINY_OPTIONS, Quiet
from several_ranks import KINDS, ROWS, STOP_AFTER, learnt, make_agent
from test_commanded_negatives import batch as commanded_batch
from test_resume import assert_same
from test_trainer import rows, weights

from crl import checkpoint, ranks
from crl.buffer import TrajectoryBuffer
from crl.errors import CheckpointError
from crl.trainer import train

RANKS = (0, 1)
TOLERANCE = 1e-5
"""Of gradients, relative to the largest entry of each tensor."""


def start(*arguments: str) -> list[subprocess.Popen[str]]:
    """The two processes of `python arguments`, as torchrun would start them on one machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    of_all = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, *arguments],
            env={**os.environ, **of_all, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in RANKS
    ]


def finish(processes: list[subprocess.Popen[str]]) -> list[tuple[str, str]]:
    """What each wrote to standard output and error until it ended."""
    try:
        return [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes have left what they found, until one of them was killed."""
    folder = tmp_path_factory.mktemp("ranks")
    processes = start(several_ranks.__file__, str(folder))
    try:
        wait_for_a_checkpoint(folder / "killed", processes)
        processes[1].kill()
        killed = time.monotonic()
    finally:
        outputs = finish(processes)
    assert processes[0].returncode == 0, outputs
    (folder / "seconds.json").write_text(json.dumps(time.monotonic() - killed))
    return folder


def wait_for_a_checkpoint(run: Path, processes: list[subprocess.Popen[str]]) -> None:
    deadline = time.monotonic() + 240
    while not checkpoint.complete(run) and time.monotonic() < deadline:
        if any(process.poll() is not None for process in processes):
            pytest.fail(str(finish(processes)))
        time.sleep(0.05)


def told(folder: Path, name: str) -> list[Any]:
    """What each rank reported, by rank."""
    return [json.loads((folder / f"{name}.rank{rank}.json").read_text()) for rank in RANKS]


# --- the update -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind)))
def test_two_halves_of_a_batch_give_the_gradient_of_the_whole(reports: Path, kind: tuple[str, str, float]) -> None:
    whole = learnt(make_agent(kind), commanded_batch(rows=ROWS))
    name = f"{kind[0]}-{kind[1]}"
    halves = [safetensors.torch.load_file(reports / f"{name}.rank{rank}.safetensors") for rank in RANKS]
    for name, expected in whole.items():
        assert torch.equal(halves[0][name], halves[1][name]), name
        error = (halves[0][name] - expected).abs().max() / expected.abs().max().clamp(min=1e-6)
        assert error < TOLERANCE, (name, error)


def test_the_gradients_compared_differ_between_kinds(reports: Path) -> None:
    """Else the test above would not tell them apart."""
    found = [safetensors.torch.load_file(path) for path in sorted(reports.glob("*.rank0.safetensors"))]
    assert len(found) == len(KINDS)
    for i, one in enumerate(found):
        for other in found[:i]:
            assert max((one[name] - other[name]).abs().max() for name in one.keys() & other.keys()) > 1e-3


# --- a run ------------------------------------------------------------------------------------------------------------


def test_a_run_of_two_is_one_run(reports: Path) -> None:
    one, two = told(reports, "straight")
    assert one == two
    assert one[:2] == [400, 40]  # env steps and updates of all, as of one process
    run = reports / "straight"
    agents = [(run / f"agent{rank}.safetensors").read_bytes() for rank in RANKS]
    assert agents[0] == agents[1] == (checkpoint.latest(run) / "agent.safetensors").read_bytes()
    found = rows(run)
    assert [row["env_steps"] for row in found if "eval/success_rate" not in row] == list(range(40, 401, 40))
    assert {k: v for k, v in found[-1].items() if k.startswith("eval/")} == one[2]
    assert (one[2]["eval/success_rate"] * 6) == pytest.approx(round(one[2]["eval/success_rate"] * 6))


def test_each_rank_has_worlds_and_a_buffer_of_its_own(reports: Path) -> None:
    saved = checkpoint.latest(reports / "straight")
    buffers = [TrajectoryBuffer.load(saved / name) for name in ("buffer.crlb", "rank1.buffer.crlb")]
    assert [(b.num_envs, b.capacity, b.rows_written) for b in buffers] == [(2, 200, 200)] * 2
    goals = [b.sample(64, goal="random").goal for b in buffers]
    assert not (goals[0] == goals[1]).any()


def test_stopped_by_any_rank_and_resumed_is_as_if_never_stopped(reports: Path) -> None:
    assert told(reports, "stopped") == [[STOP_AFTER, True]] * 2
    assert_same(reports / "straight", reports / "stopped")
    saved = [checkpoint.latest(reports / name) for name in ("straight", "stopped")]
    for name in ("rank1.collector.safetensors", "rank1.buffer.crlb"):
        assert (saved[0] / name).read_bytes() == (saved[1] / name).read_bytes()


def test_a_run_of_two_from_a_data_set_is_one_run(reports: Path) -> None:
    assert told(reports, "offline") == [[0, 40]] * 2
    run = reports / "offline"
    agents = [(run / f"agent{rank}.safetensors").read_bytes() for rank in RANKS]
    assert agents[0] == agents[1] == (checkpoint.latest(run) / "agent.safetensors").read_bytes()
    assert told(reports, "offline_stopped") == [[STOP_AFTER, True]] * 2
    assert rows(run) == rows(reports / "offline_stopped")
    assert weights(run) == weights(reports / "offline_stopped")


# --- what it refuses --------------------------------------------------------------------------------------------------


def test_another_number_of_processes_is_refused(reports: Path) -> None:
    with pytest.raises(CheckpointError, match=r"it is of 2 processes, this run has 1; .*torchrun --nproc-per-node 2"):
        train(resume=reports / "straight", reporter=Quiet())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("uneven", "ConfigError: num_envs is 5, batch_size is 17: expected multiples of 2"),
        ("in_use", "straight is not empty"),
        ("astray", "RankError: rank 1 has other weights than rank 0 after 20 updates"),
        ("full", "step_400 cannot be written: [Errno 28] No space left on device. Earlier checkpoints are intact."),
    ],
)
def test_all_ranks_end_with_the_same_error(reports: Path, name: str, message: str) -> None:
    one, two = told(reports, name)
    assert one == two
    assert message in one
    assert "\n" not in one


def test_what_fails_on_one_rank_leaves_the_earlier_checkpoint(reports: Path) -> None:
    assert [path.name for path in (reports / "full" / "checkpoints").iterdir()] == ["step_200"]
    checkpoint.latest(reports / "full")


def test_a_process_that_is_alone_imports_nothing_of_this() -> None:
    program = "import crl.ranks, sys; crl.ranks.join(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "crl.ranks" in done.stdout.split()
    assert not {"crl.distributed", "torch"} & set(done.stdout.split())
    package = Path(ranks.__file__).parent
    importing = [path for path in package.rglob("*.py") if "crl.distributed import" in path.read_text()]
    assert importing == [package / "ranks.py"]  # where it is needed alone


# --- failures ---------------------------------------------------------------------------------------------------------


def test_a_rank_that_is_killed_is_named_by_the_other(reports: Path) -> None:
    (told,) = (json.loads(path.read_text()) for path in reports.glob("killed.rank*.json"))
    assert told.startswith("RankError: rank 1 ended without a word")
    assert told.endswith(f"go on with --resume {reports}/killed")
    assert json.loads((reports / "seconds.json").read_text()) < 20
    checkpoint.latest(reports / "killed")


@pytest.fixture
def endless(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Two processes in the midst of a run that has a checkpoint."""
    processes = start(short_crl.__file__, "train", *TINY_OPTIONS, "--total-env-steps=1e6", f"--run-dir={tmp_path}/run")
    wait_for_a_checkpoint(tmp_path / "run", processes)
    yield processes
    for process in processes:
        process.kill()
    finish(processes)


@pytest.mark.slow
@pytest.mark.parametrize("killed", RANKS)
def test_a_rank_that_is_killed_ends_the_command(
    endless: list[subprocess.Popen[str]], tmp_path: Path, killed: int
) -> None:
    endless[killed].kill()
    began = time.monotonic()
    _, errors = endless[1 - killed].communicate(timeout=60)
    assert time.monotonic() - began < 20
    assert endless[1 - killed].returncode == 1, errors
    assert f"Error: rank {killed}" in errors
    assert "ended without a word" in errors
    assert f"go on with --resume {tmp_path}/run" in errors
    assert "Traceback" not in errors
    checkpoint.latest(tmp_path / "run")


@pytest.mark.slow
def test_an_interrupt_saves_and_the_run_goes_on(endless: list[subprocess.Popen[str]], tmp_path: Path) -> None:
    endless[1].send_signal(signal.SIGINT)  # one of them is enough
    outputs = finish(endless)
    assert [process.returncode for process in endless] == [130, 130], outputs
    assert f"go on with: crl train --resume {tmp_path}/run" in outputs[0][1]
    steps = json.loads((checkpoint.latest(tmp_path / "run") / "state.json").read_text())["progress"]["env_steps"]
    again = start(
        short_crl.__file__,
        "train",
        f"--resume={tmp_path}/run",
        f"--total-env-steps={steps + 80}",
        "--eval-interval=1e6",
    )
    outputs = finish(again)
    assert [process.returncode for process in again] == [0, 0], outputs
    assert "done: " in outputs[0][0]
    assert not outputs[1][0]  # rank 0 speaks for all
