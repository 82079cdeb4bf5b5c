"""`crl bench`: who is compared does what is compared, and the figures arrive where they are wanted."""

import contextlib
import csv
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from crl.agent import Agent
from crl.bench import learner, suite
from crl.bench.learner_peers import CONTENDERS, Problem, TunedTorch
from crl.bench.measure import Result, Timing, in_turns, rates
from crl.bench.peers import PEERS
from crl.bench.report import measured
from crl.bench.samplers import OursWithNext
from crl.bench.workloads import EPISODE, WORKLOADS, History
from crl.cli import main

EVERYBODY = [*suite.own_samplers(), *(pytest.param(peer, marks=pytest.mark.peers) for peer in PEERS)]


@pytest.mark.parametrize("sampler", EVERYBODY)
@pytest.mark.parametrize("workload", ["ant", "image"])
def test_everybody_samples_rows_with_goals_ahead(workload, sampler):
    if workload == "image" and not sampler.images:
        pytest.skip("holds no goals beside images")
    history = History(WORKLOADS[workload], 2 * EPISODE)
    batch = sampler(history).prepare(128)()
    suite.check(sampler.name, batch, 128)
    observation, action, goal = (np.asarray(x).reshape(128, -1) for x in batch)
    t = action[:, 0].astype(int)
    assert (observation == history.observation[0, t].reshape(128, -1)).all()
    assert len(set(t)) > 60
    if sampler not in PEERS:
        assert (goal[:, 0] > t).all()
        assert (goal[:, 0] // EPISODE == t // EPISODE).all()


def test_a_sampler_that_is_wrong_is_not_measured():
    draw = OursWithNext(History(WORKLOADS["ant"], EPISODE)).prepare(8)
    observation, action, goal = draw()
    suite.check("right", (observation, action, goal), 8)
    with pytest.raises(RuntimeError, match="wrong: 8 rows for 8, goals -"):
        suite.check("wrong", (observation, action, action - 1), 8)
    with pytest.raises(RuntimeError, match="8 rows for 9"):
        suite.check("wrong", (observation, action, goal), 9)


def test_all_take_turns():
    calls = []
    timings = in_turns({name: lambda name=name: calls.append(name) for name in "ab"}, turn=0, rounds=3)
    assert calls[-6:] == ["a", "b"] * 3
    assert all(len(timing.cpu) == len(timing.wall) == 3 for timing in timings.values())


def test_ratios_are_of_the_same_round():
    """A round in which everything takes twice as long leaves them as they are."""
    timings = {"fast": Timing([], [1.0, 2.0, 1.0]), "slow": Timing([], [4.0, 8.0, 4.0])}
    told = {"benchmark": "sample", "workload": "ant", "rows": 1, "case": "", "unit": "rows / s"}
    fast, slow = rates(timings, 8, beside=("slow", "absent"), **told)
    assert (fast.value, slow.value) == (8, 2)
    assert fast.ratios == {"slow": 4}
    assert slow.ratios == {"slow": 1}


def test_what_does_not_fit_into_memory_is_left_out_and_said(monkeypatch):
    said = []
    monkeypatch.setattr(suite, "free_memory", lambda: 10**9)
    run = suite.run(("sample",), ["ant"], [10**9], [8], with_peers=False, quick=True, say=said.append)
    assert not list(run)
    assert said == ["left out: ant, 1,000,000,000 rows: takes 577 GB, 1 GB are free"]


def test_figures_are_printed_and_written(tmp_path):
    files = [tmp_path / name for name in ("speed.json", "speed.csv", "speed.png", "speed.md")]
    options = [f"--{kind}={file}" for kind, file in zip(("json", "csv", "plot", "markdown"), files, strict=True)]
    files[3].write_text(f"What was written by hand.\n{measured('crl bench buffer')}\nan earlier run\n")
    sizes = ["--workload=ant", "--rows=1e3", "--batch-size=16", "--batch-size=32"]
    words = ["bench", "buffer", "--quick", "--no-peers", *sizes]
    done = CliRunner().invoke(main, [*words, *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    kinds = ("sample", "add", "threads", "mixed", "snapshot")
    assert all(f"\n{kind}, ant" in done.stdout for kind in kinds)
    content = json.loads(files[0].read_text())
    assert content["machine"]["versions"].startswith("crl ")
    assert {result["benchmark"] for result in content["results"]} == set(kinds)
    assert all(result["value"] > 0 for result in content["results"])
    with files[1].open(newline="") as file:
        assert [row["who"] for row in csv.DictReader(file)] == [result["who"] for result in content["results"]]
    assert files[2].read_bytes().startswith(b"\x89PNG")
    page = files[3].read_text()
    assert page.startswith("What was written by hand.")
    assert "earlier" not in page
    assert all(f"\n## {kind}, ant" in page for kind in kinds)
    assert {line.count("|") for line in page.splitlines() if line.startswith("| crl |")} >= {3, 4}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--rows none", "expected a positive whole number"),
        ("--batch-size 0.5", "expected a positive whole number"),
        ("--plot speed.txt", "--plot must end in"),
        ("--plot speed.png --only add", "--only sample"),
        ("--json none/speed.json", "no such directory"),
        ("--workload fish", "'fish' is not one of"),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(words, message):
    done = CliRunner().invoke(main, ["bench", "buffer", *words.split()])
    assert done.exit_code == 2
    assert message in done.stderr
    assert not done.stdout


# --- the learner ------------------------------------------------------------------------------------------------------


def small(depth=8, precision="float32"):
    return learner.settings(depth, 16, 24, "cpu", precision)


@pytest.mark.parametrize(
    "name", ["PyTorch, tuned", *(pytest.param(name, marks=pytest.mark.slow) for name in ("JAX, scan", "JAX, unrolled"))]
)
def test_everybody_makes_the_same_update(name):
    """Critic and actor loss agree at equal weights to 1e-4, and after an update of all weights to 1e-3."""
    pytest.importorskip(CONTENDERS[name].module)
    problem = Problem(small())
    learner.check({who: CONTENDERS[who](problem) for who in ("crl", name)}, "float32")


def test_an_update_that_is_wrong_is_not_measured(monkeypatch):
    for changed in ("LEARNING_RATE", "PENALTY"):
        with monkeypatch.context() as patched:
            patched.setattr(f"crl.bench.learner_peers.{changed}", 0.05)
            problem = Problem(small())
            with pytest.raises(RuntimeError, match="PyTorch, tuned: losses of critic and actor are"):
                learner.check({who: CONTENDERS[who](problem) for who in ("crl", TunedTorch.name)}, "float32")


def test_the_learner_s_figures_are_printed_and_written(tmp_path):
    files = {kind: tmp_path / f"speed.{kind}" for kind in ("json", "csv", "png", "md")}
    options = [
        f"--json={files['json']}",
        f"--csv={files['csv']}",
        f"--plot={files['png']}",
        f"--markdown={files['md']}",
    ]
    words = "bench learner --quick --depth 4 --depth 8 --width 16 --batch-size 24 --device cpu --no-peers"
    parts = ["--only=update", "--only=phases"]
    done = CliRunner().invoke(main, [*words.split(), *parts, *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = json.loads(files["json"].read_text())["results"]
    assert {result["case"] for result in found} == {"depth 4", "depth 8"}
    assert all(result["value"] > 0 for result in found)
    figure = {(result["benchmark"], result["case"], result["who"]): result for result in found}
    for case, depth in (("depth 4", 4), ("depth 8", 8)):
        ours, theirs = (figure["update", case, name] for name in ("crl", "PyTorch, tuned"))
        assert theirs["ratios"] == {"PyTorch, tuned": 1}
        speeds = figure["operations", case, "crl"]
        work = learner.sizes.of(small(depth)).flop
        assert speeds["value"] == pytest.approx(work * ours["value"] / 1e9)
        assert list(speeds["ratios"]) == ["matrix product 256³", "matrix product 512³"]
        assert all(0 < ratio < 1 for ratio in speeds["ratios"].values())
        shares = [figure["phases", case, phase] for phase in learner.PHASES]
        assert sum(share["value"] for share in shares) == pytest.approx(100)
        assert figure["phases", case, "actor"]["value"] > figure["phases", case, "copy"]["value"]
    assert files["png"].read_bytes().startswith(b"\x89PNG")
    assert "\n## update, width 16, cpu, float32, 24 rows: updates / s\n" in files["md"].read_text()
    assert len(files["csv"].read_text().splitlines()) == 1 + len(found)


def test_neighbours_are_busy_while_something_is_measured_and_then_gone(monkeypatch):
    def busy_ones():
        """Seconds that each child of this process has computed."""
        found = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                words = stat.read_text().rpartition(")")[2].split()
                if int(words[1]) == os.getpid() and words[0] != "Z":
                    found[stat.parent.name] = (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
        return found

    before = busy_ones()

    def measure(*_):
        limit = time.monotonic() + 30
        while time.monotonic() < limit:
            started = [seconds for process, seconds in busy_ones().items() if process not in before]
            if len(started) == 2 and min(started) > 0.05:
                break
        return [Result("update", "width 16", 24, "depth 8", "crl", 1.0, "updates / s", 1.0, 1.0, {})] * len(started)

    monkeypatch.setattr(learner, "update", measure)
    (found,) = learner.run(("update",), [[small()]], with_peers=False, quick=True, say=print, busy=2)
    assert [result.workload for result in found] == ["width 16, beside 2 busy"] * 2
    assert busy_ones().keys() == before.keys()


def test_phases_of_an_update_that_is_made_otherwise_are_left_out(monkeypatch):
    said = []
    monkeypatch.setattr(Agent, "update", lambda self, batch: {})
    assert learner.phases(small(), ["crl"], True, said.append) == []
    assert said == [
        "left out: phases, depth 8, width 16, 24 rows: this update is not two backward passes and a step of Adam"
    ]


@pytest.mark.slow
def test_memory_and_the_start_are_measured_in_processes_of_their_own():
    config = learner.settings(64, 256, 256, "cpu", "float32")
    taken, start = learner.memory(config, ["crl"], True, print)
    assert (taken.benchmark, start.benchmark) == ("memory", "start")
    assert taken.value == pytest.approx(learner.sizes.of(config).on_device / 1e6, rel=0.5)
    assert start.value > 0


def test_updates_that_do_not_fit_or_cannot_be_made_are_left_out_and_said(monkeypatch):
    said = []
    monkeypatch.setattr(learner, "free_memory", lambda: 10**6)
    assert not list(learner.run(("update",), [[small()]], with_peers=True, quick=True, say=said.append))
    need = learner.sizes.readable(len(CONTENDERS) * learner.sizes.of(small()).on_device)
    assert said == [f"left out: depth 8, width 16, 24 rows: takes {need}, 1 MB are free"]
    said.clear()
    monkeypatch.setattr("crl.bench.learner_peers.importlib.util.find_spec", lambda name: None)
    assert learner.contenders(small(), True, said.append) == ["crl", "PyTorch, tuned"]
    assert said == [f"left out: JAX, {how}, depth 8, width 16, 24 rows: not installed" for how in ("scan", "unrolled")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--depth 6", "nearest: 4 or 8"),
        ("--width none", "expected a positive whole number"),
        ("--device gpu", "device must be auto, cpu, cuda or cuda:N"),
        ("--precision fp8", "'fp8' is not one of"),
        ("--plot speed.png --only phases", "--only update"),
        ("--csv none/speed.csv", "no such directory"),
    ],
)
def test_wrong_options_of_the_learner_are_refused_before_anything_runs(words, message):
    done = CliRunner().invoke(main, ["bench", "learner", *words.split()])
    assert done.exit_code == 2
    assert message in done.stderr
    assert not done.stdout
