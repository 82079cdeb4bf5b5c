"""Files are whole or not there, when the disk is full too; and one process at a time trains in a run directory."""

import os
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import Quiet

from crl import checkpoint
from crl.cli import main
from crl.config import TrainConfig
from crl.errors import ConfigError
from crl.files import alone, whole, write_text
from crl.trainer import train


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """The operating system refuses to write files beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_is_replaced_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    with whole(path) as place:
        assert place.suffix == ".csv"
        place.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("no")])
def test_a_failure_leaves_the_former_file_alone(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")

    def fail() -> None:
        with whole(path) as place:
            place.write_text("half of it")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_and_what_is_no_file_stay_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(tmp_path / "elsewhere" / "file")
    write_text(link, "text")
    assert link.is_symlink()
    assert (tmp_path / "elsewhere" / "file").read_text() == "text"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_text(pipe, "text")
    reader.join()
    assert read == ["text"]


def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    with full_disk(100), pytest.raises(OSError, match=r"page\.html cannot be written: File too large$"):
        write_text(path, "x" * 101)
    assert list(tmp_path.iterdir()) == []


LAB = "lab four-rooms --seeds 1 --episodes 50 --init random --no-video --output made"


@pytest.mark.parametrize(
    ("words", "limit"),
    [
        (LAB, 3_000),  # the arrays
        (LAB, 90_000),  # a picture
        ("collect --env point_maze --steps 200 --num-envs 2 --output made/walks.safetensors", 2_000),
        ("render --env point_maze --random --paths --steps 5 --output made/walk", 9_000),
    ],
)
def test_a_full_disk_is_one_line_and_leaves_no_half_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, limit: int
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("made").mkdir()
    with full_disk(limit):
        result = CliRunner().invoke(main, words.split(), prog_name="crl")
    assert result.exit_code in (1, 2), result.output
    error = result.stderr.strip().splitlines()[-1]
    assert re.search(r" cannot be written: .*File too large", error)
    named = Path(error.split()[1])
    left = [path.name for path in Path("made").iterdir()]
    assert named.parent == Path("made")
    assert named.name not in left
    assert not [name for name in left if "partial" in name]


# --- one process at a time --------------------------------------------------------------------------------------------

HOLDER = """
import os, pathlib, sys, time
from crl.errors import ConfigError
from crl.files import alone
try:
    with alone(pathlib.Path(sys.argv[1])):
        if "fork" in sys.argv and not os.fork():
            time.sleep(60)
        print("held", flush=True)
        if "stay" in sys.argv:
            time.sleep(60)
except ConfigError as error:
    print(error)
"""


def holder(directory: Path, *how: str) -> subprocess.Popen[str]:
    """Another process that takes the lock of `directory`; it has said whether it could."""
    return subprocess.Popen([sys.executable, "-c", HOLDER, str(directory), *how], stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_second_process_is_refused_until_the_first_is_gone_however_it_went(tmp_path: Path) -> None:
    """A kill releases it at once, though a process forked from it lives on."""
    with holder(tmp_path, "stay", "fork") as first:
        assert said(first) == "held"
        with pytest.raises(ConfigError, match=rf"is at work: process {first.pid} on .* trains there"), alone(tmp_path):
            pass
        first.send_signal(signal.SIGKILL)
        first.wait()
        with alone(tmp_path), holder(tmp_path) as second:
            assert f"process {os.getpid()} on" in said(second)
        with holder(tmp_path) as third:
            assert said(third) == "held"


def test_a_run_is_resumed_by_one_process(tiny: Callable[..., TrainConfig]) -> None:
    settings = tiny(total_env_steps=200)
    told: list[str] = []

    class Asking(Quiet):
        def evaluated(self, progress: Any, evaluation: Any, probes: Any = None) -> None:
            with holder(Path(settings.run_dir)) as other:
                told.append(said(other))

    train(settings, reporter=Asking())
    run = Path(settings.run_dir)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with holder(run, "stay") as other:
        assert said(other) == "held"
        with pytest.raises(ConfigError, match=f"is at work: process {other.pid}"):
            train(resume=run, total_env_steps=400, reporter=Quiet())
        other.kill()
    del before[run / ".lock"]
    assert before == {path: path.read_bytes() for path in before}
    assert train(resume=run, total_env_steps=400, reporter=Asking()).env_steps == 400
    assert len(told) == 2
    assert all(f"is at work: process {os.getpid()} on" in line for line in told)


def test_what_is_no_run_gets_no_lock(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="no complete checkpoint yet"):
        train(resume=tmp_path, reporter=Quiet())
    assert list(tmp_path.iterdir()) == []
    assert checkpoint.complete(tmp_path) == []
