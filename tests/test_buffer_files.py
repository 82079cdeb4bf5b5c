"""Snapshots, and rows that live in a file: everything comes back, and nothing that was altered does."""

import copy
import errno
import os
import shutil
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from buffer_oracle import columns, make

import crl
from crl.buffer import SnapshotError


def filled(**options):
    buffer = make(3, 30, seed=9, **options)
    steps = np.arange(17)[:, None] + 0 * np.arange(3)
    buffer.add_rollout(**columns(np.arange(3), steps), episode_start=steps % 6 == 0)
    return buffer


def test_a_loaded_buffer_goes_on_as_the_saved_one(tmp_path):
    buffer = filled()
    buffer.sample(5, num_batches=3)
    buffer.save(tmp_path / "b")
    loaded = crl.TrajectoryBuffer.load(tmp_path / "b")
    for name in ("num_envs", "capacity", "num_trajectories", "rows_written", "nbytes"):
        assert getattr(loaded, name) == getattr(buffer, name)
    for _ in range(2):
        for (name, x), (_, y) in zip(buffer.sample(50).items(), loaded.sample(50).items(), strict=True):
            assert (x == y).all(), name
        for one in (buffer, loaded):
            one.add(**columns(np.arange(3), 17), episode_start=np.zeros(3, bool))


def test_saving_replaces_the_file_at_once_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "b"
    path.write_bytes(b"old")
    filled().save(path)
    crl.TrajectoryBuffer.load(path)
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


@pytest.mark.skipif(sys.platform == "win32", reason="limits of the system's are set")
def test_a_save_that_finds_no_room_leaves_the_old_file_and_one_error(tmp_path):
    import resource

    path = tmp_path / "b"
    filled().save(path)
    old = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(old) // 2, limits[1]))  # A file may not become larger than this.
    try:
        with pytest.raises(OSError, match=r"\[Errno \d+\] .*/b'$"):
            filled().save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_every_flipped_byte_and_every_cut_is_found(tmp_path):
    path = tmp_path / "b"
    buffer = crl.TrajectoryBuffer(1, 3, (), (), ((), "uint8"))
    for t in range(4):
        buffer.add(observation=[t], action=[t], achieved_goal=[t], episode_start=[t == 2])
    buffer.save(path)
    good = path.read_bytes()
    assert len(good) < 500
    altered = [good[:i] + bytes([good[i] ^ (1 << i % 8)]) + good[i + 1 :] for i in range(len(good))]
    altered += [good[:i] for i in range(len(good))] + [good + b"\0", good * 2]
    for data in altered:
        path.write_bytes(data)
        with pytest.raises(SnapshotError, match=r"/b: .*(block \d|header|format version|not a saved buffer)"):
            crl.TrajectoryBuffer.load(path)


def test_a_missing_file_and_folder_are_os_errors(tmp_path):
    with pytest.raises(FileNotFoundError):
        crl.TrajectoryBuffer.load(tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        filled().save(tmp_path / "none" / "b")


def test_what_is_no_snapshot_is_refused(tmp_path):
    for name, data in (("empty", b""), ("pickle", b"\x80\x04N."), ("zip", b"PK\x03\x04" * 20), ("zeros", bytes(100))):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(SnapshotError, match=name):
            crl.TrajectoryBuffer.load(tmp_path / name)


def test_a_header_cannot_claim_more_than_the_file_holds(tmp_path):
    path = tmp_path / "b"
    filled().save(path)
    data = bytearray(path.read_bytes())
    length = struct.unpack_from("<I", data, 12)[0]
    struct.pack_into("<QQ", data, 20 + 20, 2**40, 2**42)  # num_envs, capacity
    struct.pack_into("<I", data, 16, zlib.crc32(struct.pack("<Q", 0) + data[20 : 20 + length]))
    path.write_bytes(data)
    with pytest.raises(SnapshotError, match="envs do not fit the file"):
        crl.TrajectoryBuffer.load(path)


def test_it_is_not_pickled():
    with pytest.raises(TypeError, match="save"):
        copy.copy(filled())


# --- rows in a file -------------------------------------------------------------------------------------------------


def test_a_file_gives_the_batches_that_memory_gives(tmp_path):
    memory, file = filled(), filled(path=tmp_path / "rows")
    batches = [buffer.sample(300, columns=("next_observation", "row")).items() for buffer in (memory, file)]
    for (name, x), (_, y) in zip(*batches, strict=True):
        assert (x == y).all(), name
    assert file.nbytes == memory.nbytes <= (tmp_path / "rows").stat().st_size


def test_a_reopened_file_goes_on_sampler_included(tmp_path):
    memory = filled()
    with filled(path=tmp_path / "rows") as file:
        file.sample(7, num_batches=3)
    memory.sample(7, num_batches=3)
    with make(3, 30, seed=9, path=tmp_path / "rows") as file:
        assert (len(file), file.rows_written, file.num_trajectories) == (30, 51, memory.num_trajectories)
        for t in range(17, 30):
            for buffer in (memory, file):
                buffer.add(**columns(np.arange(3), t), episode_start=np.full(3, t == 20))
            for (name, x), (_, y) in zip(memory.sample(40).items(), file.sample(40).items(), strict=True):
                assert (x == y).all(), name


def test_a_file_that_was_made_otherwise_is_refused_by_field(tmp_path):
    make(3, 30, seed=9, path=tmp_path / "rows").close()
    cases = {
        "num_envs: expected 3, .*; got 5": {"num_envs": 5},
        "capacity: expected 10 rows for each env, .*; got 11 rows": {"capacity": 33},
        "seed: expected 9, .*; got 8": {"seed": 8},
        r"action: expected float32 \[8\], .*; got float32 \[9\]": {"action": (9,)},
        r"observation: expected float32 \[29\], .*; got float64 \[29\]": {"observation": (29, "float64")},
        "columns: expected observation, .*; got observation, .*, reward": {"extras": {"reward": ()}},
    }
    fits = {"num_envs": 3, "capacity": 30, "seed": 9, "observation": (29,), "action": (8,), "achieved_goal": (2,)}
    crl.TrajectoryBuffer(**fits, path=tmp_path / "other").close()
    for message, argument in cases.items():
        with pytest.raises(ValueError, match=f"path: .*other: {message}"):
            crl.TrajectoryBuffer(**(fits | argument), path=tmp_path / "other")
    crl.TrajectoryBuffer(**(fits | {"capacity": 32}), path=tmp_path / "other").close()  # The same rings.


def test_what_is_no_file_of_rows_is_refused_and_kept(tmp_path):
    make(3, 30, path=tmp_path / "rows").close()
    good = (tmp_path / "rows").read_bytes()
    filled().save(tmp_path / "snapshot")
    flipped = bytearray(good)
    flipped[30] ^= 1
    snapshot = (tmp_path / "snapshot").read_bytes()
    other = {"empty": b"", "text": b"x" * 9000, "zeros": bytes(len(good)), "snapshot": snapshot}
    for name, data in (
        other | {"short": good[:-1], "long": good + b"\0", "cut": good[:40], "flipped": flipped}
    ).items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(SnapshotError, match=name):
            make(3, 30, path=tmp_path / name)
        assert (tmp_path / name).read_bytes() == data
    with pytest.raises(OSError, match="directory"):
        make(3, 30, path=tmp_path)
    with pytest.raises(FileNotFoundError):
        make(3, 30, path=tmp_path / "none" / "rows")


def test_one_buffer_at_a_time_has_the_file(tmp_path):
    first = make(3, 30, path=tmp_path / "rows")
    with pytest.raises(RuntimeError, match="rows is open in another buffer or process"):
        make(3, 30, path=tmp_path / "rows")
    first.close()
    second = make(3, 30, path=tmp_path / "rows")
    first.close()  # Closing again takes nothing from the second.
    with pytest.raises(RuntimeError, match="open in another"):
        make(3, 30, path=tmp_path / "rows")
    second.close()


def test_a_closed_buffer_refuses_every_use(tmp_path):
    for options in ({}, {"path": tmp_path / "rows"}):
        buffer = filled(**options)
        writer_rows = {**columns(np.arange(3), 0), "episode_start": np.zeros(3, bool)}
        buffer.close()
        for use in (
            lambda: buffer.sample(3),  # noqa: B023
            lambda: buffer.add(**writer_rows),  # noqa: B023
            lambda: buffer.save(tmp_path / "s"),  # noqa: B023
        ):
            with pytest.raises(RuntimeError, match="closed"):
                use()


def test_a_full_disk_is_told_when_the_file_is_made(tmp_path):

    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(OSError, match=r"the rows take \d+ bytes more, and \d+ are free") as error:
        crl.TrajectoryBuffer(1, free // 100, (29,), (8,), (2,), path=tmp_path / "rows")
    assert error.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(MemoryError, match="no file can hold"):
        crl.TrajectoryBuffer(2**40, 2**62, (29,), (8,), (2,), path=tmp_path / "rows")


def test_the_space_is_reserved(tmp_path):
    make(3, 3000, path=tmp_path / "rows").close()
    stat = (tmp_path / "rows").stat()
    assert stat.st_blocks * 512 >= stat.st_size


def test_a_writer_that_is_killed_leaves_a_file_that_goes_on(tmp_path):

    program = f"""
import itertools, numpy as np, crl
buffer = crl.TrajectoryBuffer(4, 400, ((), "int64"), ((), "int64"), ((), "int64"), path={str(tmp_path / "rows")!r})
print(buffer.rows_written, flush=True)
start = buffer.rows_written // 4
for t in itertools.count(start):
    row = np.arange(4) * 10**12 + t
    buffer.add(observation=row, action=row, achieved_goal=row, episode_start=np.full(4, t % 7 == 0 or t == start))
    if t % 64 == 0:
        print(t, flush=True)
"""
    seen = 0
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as child:
            assert int(child.stdout.readline()) >= seen
            for _ in range(20):
                seen = int(child.stdout.readline())
            child.kill()
        ints = ((), "int64")
        with crl.TrajectoryBuffer(4, 400, ints, ints, ints, path=tmp_path / "rows") as buffer:
            assert buffer.rows_written >= 4 * (seen - 64)
            batch = buffer.sample(4000, columns=("next_observation",))
            assert (batch.goal - batch.observation == batch.offset).all()
            assert (batch.next_observation == batch.observation + 1).all()
            assert (batch.observation == batch.action).all()
            seen = buffer.rows_written


def test_a_forked_child_samples_the_rows_and_adds_none(tmp_path):

    buffer = filled(path=tmp_path / "rows")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            buffer.sample(10)
            buffer.close()
            buffer.add(**columns(np.arange(3), 0), episode_start=np.zeros(3, bool))
        except RuntimeError as error:
            code = 0 if "forked" in str(error) else 2
        os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    with pytest.raises(RuntimeError, match="open in another"):  # What the child closed is still the parent's.
        filled(path=tmp_path / "rows")
    buffer.add(**columns(np.arange(3), 17), episode_start=np.zeros(3, bool))
    buffer.close()


def test_a_file_that_was_being_written_when_its_machine_stopped_is_refused(tmp_path):
    path = tmp_path / "rows"
    buffer = make(3, 30, path=path)
    assert path.read_bytes()[4096 + 8 : 4096 + 24] == bytes(16)
    for t in (0, 1):
        buffer.add(**columns(np.arange(3), t), episode_start=np.full(3, t == 0))
        data = path.read_bytes()
        assert data[4096 + 8 : 4096 + 24] != bytes(16)
        buffer.flush()
        flushed = path.read_bytes()
        assert flushed[4096 + 8 : 4096 + 24] == bytes(16)
    buffer.close()
    other_boot = bytearray(data)
    other_boot[4096 + 8] ^= 1
    path.write_bytes(other_boot)
    with pytest.raises(SnapshotError, match="rows: it was being written when its machine stopped"):
        make(3, 30, path=path)
    for good in (data, flushed):
        path.write_bytes(good)
        with make(3, 30, path=path) as buffer:
            assert len(buffer) == 6
