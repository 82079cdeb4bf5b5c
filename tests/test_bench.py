"""`crl bench buffer`: who is compared samples what is compared, and the figures arrive where they are wanted."""

import csv
import json

import numpy as np
import pytest
from click.testing import CliRunner

from crl.bench import suite
from crl.bench.measure import Timing, in_turns, rates
from crl.bench.peers import PEERS
from crl.bench.report import MEASURED
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
    files[3].write_text(f"What was written by hand.\n{MEASURED}\nan earlier run\n")
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
