"""Arrays of every bad kind at every public entry: refused with the argument's name, or taken as what they say."""

import re
from pathlib import Path

import numpy as np
import pytest

import crl
from crl import _core

ENVS, STEPS = 3, 4
SPECS = {"observation": ((2, 2), "float32"), "action": ((), "float64"), "achieved_goal": ((2,), "int64")}
ENTRIES = ["add", "add_rollout", "writer.add", "writer.add_rollout"]


def make():
    shapes = {name: (shape, dtype) for name, (shape, dtype) in SPECS.items()}
    return crl.TrajectoryBuffer(ENVS, ENVS * 10, **shapes, extras={"flag": ((), "bool")})


def rows(entry):
    """Good arguments of an entry."""
    lead = (STEPS, ENVS) if entry.endswith("rollout") else (ENVS,)
    specs = SPECS | {"flag": ((), "bool")}
    arrays = {n: (np.arange(np.prod(lead + s)) % 7).reshape(lead + s).astype(d) for n, (s, d) in specs.items()}
    return arrays | {"episode_start": np.zeros(lead, bool)}


def call(buffer, entry, arguments):
    if entry.startswith("writer"):
        with buffer.writer(0, ENVS) as writer:
            getattr(writer, entry.removeprefix("writer."))(**arguments)
    else:
        getattr(buffer, entry)(**arguments)


def misaligned(array):
    memory = np.zeros(array.nbytes + 1, np.uint8)
    view = (
        memory[1:].view(array.dtype) if array.itemsize == 1 else np.frombuffer(memory.data, array.dtype, array.size, 1)
    )
    view = view.reshape(array.shape)
    view[...] = array
    assert array.itemsize == 1 or not view.flags.aligned
    return view


def frozen(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def strided(array):
    return np.repeat(array, 2, 0)[::2]


def swapped(array):
    return array.astype(array.dtype.newbyteorder(">"))


REFUSED = {
    "twice as many": lambda a: np.repeat(a, 2, 0),
    "an axis less": lambda a: a[0],
    "an axis more": lambda a: a[None],
    "no rows": lambda a: a[:0],
    "0-d": lambda a: a.ravel()[0],
    "objects": lambda a: a.astype(object),
    "strings": lambda a: a.astype(str),
    "complex": lambda a: a.astype(complex),
    "dates": lambda a: np.zeros(a.shape, "datetime64[s]"),
    "records": lambda a: np.zeros(a.shape, [("x", "f4")]),
    "None": lambda a: None,
    "a dict": lambda a: {},
    "ragged": lambda a: [[1], [1, 2]],
}
STEPS_OF_A_ROLLOUT = [("twice as many", "episode_start"), ("no rows", "episode_start")]
TAKEN = {
    "read-only": frozen,
    "strided": strided,
    "backwards": lambda a: np.ascontiguousarray(a[::-1])[::-1],
    "columns first": np.asfortranarray,
    "of the other byte order": swapped,
    "misaligned": misaligned,
    "a list": lambda a: a.tolist(),
    "a subclass": lambda a: a.view(type("Sub", (np.ndarray,), {})),
}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("name", [*SPECS, "flag", "episode_start"])
@pytest.mark.parametrize("kind", REFUSED)
def test_bad_arrays_are_refused_by_name_and_nothing_is_added(kind, name, entry):
    buffer, arguments = make(), rows(entry)
    arguments[name] = REFUSED[kind](arguments[name])
    # How many steps a rollout has is what its episode_start says.
    named = "observation" if (kind, name) in STEPS_OF_A_ROLLOUT and entry.endswith("rollout") else name
    with pytest.raises((TypeError, ValueError), match=rf"^{named}: expected .*; got ") as raised:
        call(buffer, entry, arguments)
    assert not isinstance(raised.value, crl.buffer.InternalError)
    assert len(buffer) == buffer.rows_written == 0


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("name", [*SPECS, "flag", "episode_start"])
@pytest.mark.parametrize("kind", TAKEN)
def test_unusual_arrays_are_taken_as_what_they_say(kind, name, entry):
    buffers = [make(), make()]
    for buffer in buffers:
        call(buffer, entry, rows(entry))
        arguments = rows(entry)
        if buffer is buffers[1]:
            arguments[name] = TAKEN[kind](arguments[name])
        call(buffer, entry, arguments)
    batches = [buffer.sample(200, goal="next", columns=("flag", "next_action")) for buffer in buffers]
    for (column, one), (_, other) in zip(batches[0].items(), batches[1].items(), strict=True):
        assert (one == other).all(), column


OUT = {
    "too short": lambda a: a[:-1],
    "an axis more": lambda a: a[None],
    "no rows": lambda a: a[:0],
    "of another dtype": lambda a: a.astype("float16"),
    "objects": lambda a: a.astype(object),
    "of the other byte order": swapped,
    "strided": strided,
    "backwards": lambda a: np.ascontiguousarray(a[::-1])[::-1],
    "misaligned": misaligned,
    "read-only": frozen,
    "a list": lambda a: a.tolist(),
    "None": lambda a: None,
}


@pytest.mark.parametrize("name", ["observation", "action", "goal", "offset", "next_action"])
@pytest.mark.parametrize("kind", OUT)
def test_bad_out_arrays_are_refused_by_name_and_nothing_is_drawn(kind, name):
    buffer = make()
    buffer.add_rollout(**rows("add_rollout"))
    out = buffer.sample(5, columns=("next_action",))
    bad = OUT[kind](getattr(out, name))
    if name in out.extras:
        out.extras[name] = bad
    else:
        setattr(out, name, bad)
    number = buffer._core.next_batch
    with pytest.raises((TypeError, ValueError), match=rf"^out\.{re.escape(name)}: expected a "):
        buffer.sample(5, columns=("next_action",), out=out)
    assert buffer._core.next_batch == number


@pytest.mark.parametrize("out", [3, [], {}, np.zeros(5)])
def test_an_out_that_is_no_batch_is_refused(out):
    buffer = make()
    buffer.add_rollout(**rows("add_rollout"))
    with pytest.raises((TypeError, AttributeError)):
        buffer.sample(5, out=out)


def test_the_binding_refuses_what_the_package_never_hands_it():
    """One layer further in: still an exception, and never a panic."""
    core = make()._core
    good = list(rows("add").values())
    columns, starts, lead = tuple(good[:-1]), good[-1], (len(good[-1]),)
    request = core.request(0.9, [("next", 1.0)], ["observation", "offset"], None)
    out = (np.zeros((2, 2, 2), "f4"), np.zeros(2, "i4"))
    for bad in (
        (),
        columns[:-1],
        (*columns[:-1], None),
        (*columns[:-1], 3),
        (np.zeros((3, 2, 2), object), *columns[1:]),
        list(columns),
    ):
        with pytest.raises((TypeError, ValueError, AttributeError)):
            core.add(lead, bad, starts)
    for wrong in ((0, *lead), (2, *lead), (2**62, *lead), (-1,), (), (1, 1, *lead), 1):
        with pytest.raises((TypeError, ValueError, OverflowError)):
            core.add(wrong, columns, starts)
    with pytest.raises(TypeError):
        core.add(lead, (strided(columns[0]), *columns[1:]), starts)
    core.add(lead, columns, starts)
    core.add(lead, columns, starts)
    wrong_ones = ((), out[:1], (out[0], None), (out[0][:1], out[1]), (frozen(out[0]), out[1]), (out[1], out[1]), [*out])
    for bad in wrong_ones:
        with pytest.raises((TypeError, ValueError, AttributeError)):
            core.sample(request, (2,), None, bad)
    for wrong in ((0,), (0, 1), (1, 0), (2**62, 2**62), (), (1, 1, 2), 2):
        with pytest.raises((TypeError, ValueError)):
            core.sample(request, wrong, None, out)
    assert core.rows == 2 * ENVS
    core.sample(request, (2,), None, out)


def test_a_panic_becomes_an_exception_and_the_process_lives(capfd):
    """It needs `panic = "unwind"`, in the wheel too."""
    buffer = make()
    with pytest.raises(_core.InternalError, match=r"crl has a bug: asked to\. Please report it"):
        _core.panic_for_test()
    assert issubclass(_core.InternalError, RuntimeError)
    buffer.add_rollout(**rows("add_rollout"))
    assert len(buffer.sample(3).offset) == 3


def test_no_profile_aborts_on_a_panic():
    manifest = Path(__file__).parents[1] / "Cargo.toml"
    if not manifest.is_file():
        pytest.skip("needs the sources")
    import tomllib

    profiles = tomllib.loads(manifest.read_text(encoding="utf-8"))["profile"]
    assert profiles["release"]["panic"] == "unwind"
    assert all(profile.get("panic", "unwind") == "unwind" for profile in profiles.values())
