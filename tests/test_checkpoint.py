"""Checkpoints are whole or not there: kills at every step of writing, damage to every file, names that lead astray."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crl import checkpoint
from crl.errors import CheckpointError


def files(content: str) -> dict[str, Callable[[Path], object]]:
    return {
        "agent": lambda path: path.write_text(f"agent {content}"),
        "buffer": lambda path: path.write_text(f"buffer {content}"),
    }


def save(run: Path, step: int, content: str = "", keep: int = 9) -> Path:
    return checkpoint.save(run, step, files(content or str(step)), keep=keep)


def content(directory: Path) -> str:
    """What was saved in a verified checkpoint; both files must be of the same save."""
    agent, buffer = (directory / "agent").read_text(), (directory / "buffer").read_text()
    assert agent.removeprefix("agent ") == buffer.removeprefix("buffer ")
    return agent.removeprefix("agent ")


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


# --- saving and finding -----------------------------------------------------------------------------------------------


def test_the_newest_is_found_by_number_not_by_name_or_time(tmp_path: Path) -> None:
    for step in (900, 1000, 20):
        save(tmp_path, step)
    assert checkpoint.latest(tmp_path) == tmp_path / "checkpoints" / "step_1000"
    assert [path.name for path in checkpoint.complete(tmp_path)] == ["step_20", "step_900", "step_1000"]


def test_the_newest_stay(tmp_path: Path) -> None:
    for step in (10, 20, 30, 40):
        save(tmp_path, step, keep=2)
    assert names(tmp_path) == ["step_30", "step_40"]


def test_the_same_step_is_replaced(tmp_path: Path) -> None:
    save(tmp_path, 10, "first")
    save(tmp_path, 10, "second")
    assert names(tmp_path) == ["step_10"]
    assert content(checkpoint.latest(tmp_path)) == "second"


def test_the_manifest_lists_every_file_with_size_and_digest(tmp_path: Path) -> None:
    directory = save(tmp_path, 10, "x")
    manifest = json.loads((directory / "MANIFEST.json").read_text())
    assert manifest["files"].keys() == {"agent", "buffer"}
    assert manifest["files"]["agent"]["size"] == len("agent x")
    assert len(manifest["files"]["agent"]["blake2b"]) == 128


def test_other_names_are_left_alone(tmp_path: Path) -> None:
    for name in ("step_x", "step_5.bak", "xstep_7", "best"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    save(tmp_path, 10, keep=1)
    assert names(tmp_path) == ["best", "step_10", "step_5.bak", "step_x", "xstep_7"]
    assert checkpoint.latest(tmp_path).name == "step_10"


def test_a_run_without_a_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no complete checkpoint yet"):
        checkpoint.latest(tmp_path)
    with pytest.raises(CheckpointError, match=r"nowhere cannot be loaded: no such directory"):
        checkpoint.latest(tmp_path / "nowhere")


# --- failures while writing -------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


@pytest.fixture
def fail_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, BaseException], list[str]]]:
    """Make call number n, of all that touch the disk, raise; returns the list of the calls made until then."""
    with monkeypatch.context() as patch:

        def arm(number: int, error: BaseException) -> list[str]:
            patch.undo()
            calls: list[str] = []

            def failing(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
                def call(*args: Any, **kwargs: Any) -> Any:
                    if len(calls) == number:
                        calls.append("failed")
                        raise error
                    if len(calls) < number:
                        calls.append(name)
                    return real(*args, **kwargs)

                return call

            for name in ("open", "fsync", "rename"):
                patch.setattr(checkpoint.os, name, failing(f"os.{name}", getattr(os, name)))
            patch.setattr(checkpoint.shutil, "rmtree", failing("shutil.rmtree", shutil.rmtree))
            for name in ("mkdir", "write_text", "open"):
                patch.setattr(Path, name, failing(f"Path.{name}", getattr(Path, name)))
            return calls

        yield arm
        patch.undo()


def calls_of_a_save(fail_at: Callable[..., list[str]], run: Path) -> int:
    """How many calls one replacing save makes."""
    save(run, 10, "old")
    calls = fail_at(10**6, Killed())
    save(run, 10, "new")
    shutil.rmtree(run)
    return len(calls)


@pytest.mark.parametrize("replacing", [True, False])
def test_a_kill_at_any_moment_leaves_the_old_state_or_the_new(
    tmp_path: Path, fail_at: Callable[..., list[str]], replacing: bool
) -> None:
    total = calls_of_a_save(fail_at, tmp_path / "count")
    assert total > 15
    seen = []
    for number in range(total):
        run = tmp_path / str(number)
        fail_at(10**6, Killed())
        save(run, 10, "old")
        calls = fail_at(number, Killed())
        try:
            save(run, 10 if replacing else 20, "new")
        except Killed:
            assert calls[-1] == "failed"
        fail_at(10**6, Killed())
        seen.append(content(checkpoint.latest(run)))
        # The run goes on from there, and what the kill left behind is tidied up.
        save(run, 30, "later", keep=1)
        assert names(run) == ["step_30"]
    first_new = seen.index("new")
    assert seen == ["old"] * first_new + ["new"] * (total - first_new)
    assert first_new > total / 2


def test_an_error_at_any_moment_is_one_line_and_leaves_earlier_checkpoints(
    tmp_path: Path, fail_at: Callable[..., list[str]]
) -> None:
    total = calls_of_a_save(fail_at, tmp_path / "count")
    failed = 0
    for number in range(total):
        run = tmp_path / str(number)
        fail_at(10**6, OSError())
        save(run, 10, "old")
        fail_at(number, OSError(28, "No space left on device"))
        try:
            save(run, 20, "new")
        except CheckpointError as error:
            message = str(error)
            failed += 1
        except OSError:
            pytest.fail(f"call {number} let an OSError through")
        else:
            continue
        fail_at(10**6, OSError())
        assert "step_20 cannot be written: [Errno 28] No space left on device" in message
        assert "\n" not in message
        assert content(checkpoint.latest(run)) in ("old", "new")
        assert checkpoint.complete(run)[0].name == "step_10"
    assert failed > total / 2


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def full(path: Path) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    save(tmp_path, 10)
    with pytest.raises(CheckpointError, match="No space left on device"):
        checkpoint.save(tmp_path, 20, {**files("new"), "late": full}, keep=1)
    assert names(tmp_path) == ["step_10"]


def test_an_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file where the directory should be")
    with pytest.raises(CheckpointError, match=r"checkpoints/step_10 cannot be written"):
        save(tmp_path, 10)


def test_a_checkpoint_without_a_manifest_does_not_count(tmp_path: Path) -> None:
    save(tmp_path, 10)
    (save(tmp_path, 20) / "MANIFEST.json").unlink()
    assert checkpoint.latest(tmp_path).name == "step_10"


# --- damage -----------------------------------------------------------------------------------------------------------


def test_every_flipped_byte_and_every_truncation_is_found_and_named(tmp_path: Path) -> None:
    directory = save(tmp_path, 10)
    for name in ("agent", "buffer"):
        path = directory / name
        whole = path.read_bytes()
        flipped = [whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :] for i in range(len(whole))]
        for damaged in [*flipped, *(whole[:i] for i in range(len(whole))), whole + b"\0"]:
            path.write_bytes(damaged)
            with pytest.raises(CheckpointError, match=rf"step_10 is damaged: {name} does not match its digest"):
                checkpoint.latest(tmp_path)
        path.unlink()
        with pytest.raises(CheckpointError, match=rf"step_10 is damaged: '{name}' is missing"):
            checkpoint.latest(tmp_path)
        path.write_bytes(whole)
    assert checkpoint.latest(tmp_path) == directory


def test_the_way_out_is_named(tmp_path: Path) -> None:
    save(tmp_path, 10)
    (save(tmp_path, 20) / "agent").write_text("else")
    with pytest.raises(CheckpointError, match=r"delete .*step_20 to go on from step_10"):
        checkpoint.latest(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints" / "step_10")
    with pytest.raises(CheckpointError, match="there is no older one"):
        checkpoint.latest(tmp_path)


def write_manifest(directory: Path, manifest: Any) -> None:
    (directory / "MANIFEST.json").write_text(manifest if isinstance(manifest, str) else json.dumps(manifest))


@pytest.mark.parametrize(
    "manifest",
    [
        "",
        "{",
        "null",
        "3",
        "[]",
        "{}",
        '{"format": 1}',
        '{"format": 1, "files": ""}',
        '{"files": {}}',
        "[" * 10_000,
        "\0",
    ],
)
def test_a_damaged_manifest_is_named(tmp_path: Path, manifest: str) -> None:
    write_manifest(save(tmp_path, 10), manifest)
    with pytest.raises(CheckpointError, match=r"step_10 is damaged: MANIFEST\.json is unreadable"):
        checkpoint.latest(tmp_path)


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    write_manifest(save(tmp_path, 10), {"format": 2, "files": {}})
    with pytest.raises(CheckpointError, match="has format 2, expected 1: upgrade crl"):
        checkpoint.latest(tmp_path)


JSON = st.recursive(
    st.none() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner), max_leaves=8
)


@given(JSON)
def test_no_manifest_makes_another_error(tmp_path_factory: pytest.TempPathFactory, entries: Any) -> None:
    run = tmp_path_factory.getbasetemp() / "fuzzed"
    directory = save(run, 10)
    write_manifest(directory, {"format": 1, "files": entries or None})  # {} would say truly that it has no files
    with pytest.raises(CheckpointError, match="step_10"):
        checkpoint.latest(run)


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/hostname", "a/b", "..", ".", "", "sub/../agent", "agent\0", "a" * 5000]
)
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    directory = save(tmp_path, 10)
    (directory.parent / "secret").write_text("x")
    write_manifest(directory, {"format": 1, "files": {name: {"size": 1, "blake2b": ""}}})
    with pytest.raises(CheckpointError, match=r"step_10 is damaged: .* is missing, or not a plain file"):
        checkpoint.verify(directory)


def test_a_link_to_a_file_elsewhere_is_refused(tmp_path: Path) -> None:
    directory = save(tmp_path, 10)
    shutil.move(directory / "agent", tmp_path / "elsewhere")
    (directory / "agent").symlink_to(tmp_path / "elsewhere")  # the same bytes
    with pytest.raises(CheckpointError, match="not a plain file of it"):
        checkpoint.verify(directory)


def test_a_directory_or_pipe_in_place_of_a_file_is_refused_at_once(tmp_path: Path) -> None:
    directory = save(tmp_path, 10)
    (directory / "agent").unlink()
    os.mkfifo(directory / "agent")  # reading it would wait for ever
    with pytest.raises(CheckpointError, match="'agent' is missing"):
        checkpoint.verify(directory)
    (directory / "agent").unlink()
    (directory / "agent").mkdir()
    with pytest.raises(CheckpointError, match="'agent' is missing"):
        checkpoint.verify(directory)
