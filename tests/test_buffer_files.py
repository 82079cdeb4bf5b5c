"""Saving and loading: everything comes back, and nothing that was altered does."""

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
    import struct
    import zlib

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
    import copy

    with pytest.raises(TypeError, match="save"):
        copy.copy(filled())
