"""`crl sweep`: the file, the states of trials, minding them, Ctrl-C, submitit, and a stand-in for Ray.

Most trials here run `short_trial`, a program of the standard library that behaves as `crl train` does towards a sweep.
"""

import csv
import importlib.util
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import types
import warnings
from pathlib import Path

import click
import pytest
import short_crl
from click.testing import CliRunner
from conftest import TINY

from crl import checkpoint, config, resolution
from crl.cli import main
from crl.errors import ConfigError
from crl.sweep import backends, driver
from crl.sweep.backends import Attempt, Local, Ray, Submitit
from crl.sweep.driver import Driver
from crl.sweep.plan import read
from crl.sweep.trial import BROKEN, DONE, NEW, STOPPED

SHORT_TRIAL = """
import json, pathlib, signal, sys, time
options = dict(word.lstrip("-").split("=", 1) if "=" in word else (word.lstrip("-"), None) for word in sys.argv[1:])
if "--resume" in sys.argv:
    run = pathlib.Path(sys.argv[sys.argv.index("--resume") + 1])
else:
    run = pathlib.Path(sys.argv[sys.argv.index("--run-dir") + 1])
    run.mkdir(parents=True)
    made = pathlib.Path(__file__).with_name("config.yaml").read_text()
    (run / "config.yaml").write_text(made.replace("depth: 4", "depth: " + options["depth"], 1))
print(*sys.argv[1:], flush=True)
told = []
signal.signal(signal.SIGINT, lambda *_: told.append(1))
plan = json.loads(pathlib.Path(__file__).with_name("plan.json").read_text()).get(run.name, ["done"])
before = pathlib.Path(__file__).with_name(run.name)
attempts = before.stat().st_size if before.exists() else 0
before.write_text("x" * (attempts + 1))
(run / f"attempt_{attempts}").touch()

def save(step):
    folder = run / "checkpoints" / f"step_{step}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "state.json").write_text(json.dumps({"progress": {"evaluated_at": step}}))
    (folder / "MANIFEST.json").write_text("{}")
    (run / "metrics.csv").write_text(f"env_steps,updates,wall_time,eval/success_rate\\n{step},1,2.5,0.5\\n")

act = plan[min(attempts, len(plan) - 1)]
if act == "done":
    save(400)
if act == "crash":
    save(200)
    sys.exit("out of luck")
if act == "early":
    sys.exit("no luck at all")
if act == "wrong":
    sys.exit(2)
if act == "wait":
    while not told:
        time.sleep(0.01)
    save(200)
    sys.exit(130)
"""


@pytest.fixture
def program(tmp_path):
    """`program(**acts)`: what to run in place of crl, whose trials act as told, one word for each attempt."""
    folder = tmp_path / "program"
    folder.mkdir()
    (folder / "short_trial.py").write_text(SHORT_TRIAL)
    given = config.TrainConfig(env="point_maze", depth=4, total_env_steps=400, learning_starts=0, num_envs=4)
    config.write(resolution.resolve(given, device="cpu", num_cores=1).config, folder / "config.yaml")

    def made(**acts):
        named = {f"depth={name[1:]},seed=0": words for name, words in acts.items()}
        (folder / "plan.json").write_text(json.dumps(named))
        return [sys.executable, "-S", str(folder / "short_trial.py")]

    return made


FILE = "train: {env: point_maze, total_env_steps: 400, learning_starts: 0, num_envs: 4}\ngrid: {depth: [4, 8, 12]}\n"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write the file of a sweep, in an empty directory."""
    monkeypatch.chdir(tmp_path)

    def written(text=FILE):
        (tmp_path / "sweep.yaml").write_text(text)
        return "sweep.yaml"

    return written


@pytest.fixture
def crl(write, monkeypatch):
    monkeypatch.setattr("signal.signal", lambda *_: None)  # the signals are pytest's here
    return lambda *arguments: CliRunner().invoke(main, ["sweep", *arguments], prog_name="crl")


def index(path="runs/sweep/sweep.csv"):
    with Path(path).open(newline="") as file:
        return {row["trial"]: row for row in csv.DictReader(file)}


def states(minded):
    return [(entry.state, entry.attempts) for entry in minded.entries]


# --- the file ---------------------------------------------------------------------------------------------------------


def test_trials_are_grid_times_seeds(write):
    sweep = read(write("name: x\ntrain: {env: reacher}\ngrid:\n  depth: [4, 8]\n  algorithm: [crl, sac]\nseeds: 2\n"))
    assert len(sweep.trials) == 8
    assert [trial.name for trial in sweep.trials][:3] == [
        "depth=4,algorithm=crl,seed=0",
        "depth=4,algorithm=crl,seed=1",
        "depth=4,algorithm=sac,seed=0",
    ]
    assert sweep.trials[1].run_dir == Path("runs/x/depth=4,algorithm=crl,seed=1")
    assert sweep.trials[1].settings == {"env": "reacher", "depth": 4, "algorithm": "crl", "seed": 1}


def test_several_grids_follow_each_other_and_seeds_may_be_listed(write):
    sweep = read(write("grid: [{depth: [4], learning_rate: [3e-4]}, {depth: [64]}]\nseeds: [7, 3]\n"), "out")
    assert [trial.name for trial in sweep.trials] == [
        "depth=4,learning_rate=0.0003,seed=7",
        "depth=4,learning_rate=0.0003,seed=3",
        "depth=64,seed=7",
        "depth=64,seed=3",
    ]
    assert sweep.trials[0].settings["learning_rate"] == 3e-4  # which YAML 1.1 reads as text
    assert {trial.run_dir.parent for trial in sweep.trials} == {Path("out")}


def test_names_of_directories_are_plain(write):
    text = "train: {env: point_maze}\ngrid:\n  layout:\n  - u\n  - |\n    #####\n    #R.G#\n    #####\n"
    plain, drawn = read(write(text)).trials
    assert plain.name == "layout=u,seed=0"
    assert plain.run_dir == Path("runs/sweep/layout=u,seed=0")
    assert re.fullmatch(r"layout=R\.G-[0-9a-f]{8},seed=0", drawn.name)


@pytest.mark.peers
def test_names_of_other_projects_worlds_are_plain_too(write):
    (adapted,) = read(write("grid: {env: ['gymnasium:FetchReach-v4']}\n")).trials
    assert adapted.name == "env=gymnasium-FetchReach-v4,seed=0"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("trian: {}", "unknown key 'trian'. Did you mean 'train'"),
        ("depth: 4", "unknown key 'depth'. It is a setting: put it under train"),
        ("train: {dept: 4}", "train has an unknown key 'dept'. Did you mean 'depth'"),
        ("train: [4]", "train must be a mapping"),
        ("train: {depth: deep}", "depth must be of type int, got 'deep'"),
        ("train: {seed: 3}", "it has a key of its own: seeds"),
        ("train: {run_dir: here}", "gives every run a directory"),
        ("grid: {dept: [4]}", "grid has an unknown key 'dept'. Did you mean 'depth'"),
        ("grid: {seed: [4]}", "it has a key of its own: seeds"),
        ("grid: {depth: 4}", "depth must be a list of values, such as [4]"),
        ("grid: {depth: []}", "depth must be a list of values"),
        ("grid: {depth: [4, 8, 4]}", "depth has 4 twice"),
        ("grid: {depth: [4, 0]}", "depth must be at least 1, got 0"),
        ("grid: [{depth: [4]}, {depth: [deep]}]", "grid 2: depth must be of type int"),
        ("grid: [4]", "must be a mapping of settings to lists"),
        ("train: {depth: 4}\ngrid: {depth: [8]}", "depth is under train too"),
        ("grid: [{depth: [4]}, {depth: [4]}]", "are the same run"),
        ("grid: {env: [ant_maze, ant_u_maze]}", "are the same run"),
        ("grid: {depth: [4, 5]}", "trial depth=5,seed=0: depth must be a positive multiple of 4"),
        ("train: {env: reachr}", "reacher"),
        ("seeds: 0", "seeds must be how many"),
        ("seeds: [1, 1]", "seeds must be how many"),
        ("seeds: [-1]", "seed must be at least 0"),
        ("name: a/b", "name must be letters"),
        ("- 4", "must hold a mapping"),
        ("a: [", "not valid YAML"),
    ],
)
def test_mistakes_in_the_file_are_one_line_and_nothing_starts(crl, write, tmp_path, text, words):
    result = crl(write(text))
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert words in line
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.yaml"]


def test_dry_run_prints_commands_that_train_takes(crl, write, tmp_path):
    write("train: {env: reacher, async: true, graphs: false, compile: false}\ngrid: {depth: [4, 8]}\nseeds: 2\n")
    shown = crl("sweep.yaml", "--dry-run", "--jobs", "2").output.splitlines()
    assert len(shown) == 4
    cores = len(os.sched_getaffinity(0))
    assert shown[0] == (
        "crl train --env=reacher --async --no-graphs --no-compile --depth=4 --seed=0 "
        f"--num-threads={max(1, cores // 2)} --run-dir runs/sweep/depth=4,seed=0"
    )
    for line in shown:
        train = main.get_command(click.Context(main), "train")
        taken = train.make_context("train", shlex.split(line)[2:]).params
        assert (taken["asynchronous"], taken["graphs"], taken["compile"]) == (True, False, False)
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.yaml"]


# --- trials, by what is in their directories --------------------------------------------------------------------------


def ran(trial, program):
    """The exit code of one attempt at the trial."""
    return Attempt(trial, program)()


def test_state_of_a_trial_is_what_its_directory_says(write, program):
    trial = read(write()).trials[0]
    acts = program(d4=["crash", "done"])
    assert trial.state() == NEW
    assert ran(trial, acts) == 1
    assert trial.state() == STOPPED
    assert trial.command()[:3] == ["train", "--resume", str(trial.run_dir)]
    assert trial.measured()["env_steps"] == 200
    assert ran(trial, acts) == 0
    assert trial.state() == DONE
    assert trial.log.read_text().splitlines()[1:] == ["out of luck", f"train --resume {trial.run_dir}"]


def test_what_came_to_no_checkpoint_is_moved_away(write, program):
    trial = read(write()).trials[0]
    for number in (1, 2):
        assert ran(trial, program(d4=["early"])) == 1
        assert trial.state() == BROKEN
        trial.clear()
        assert trial.state() == NEW
        assert (trial.run_dir.parent / "failed" / f"{trial.name}-{number}" / f"attempt_{number - 1}").is_file()


def test_a_longer_sweep_goes_on_with_finished_runs(write, program):
    trial = read(write()).trials[0]
    assert ran(trial, program()) == 0
    longer = read(write(FILE.replace("400", "800"))).trials[0]
    assert longer.state() == STOPPED
    assert longer.command() == ["train", "--resume", str(trial.run_dir), "--total-env-steps=800"]


def test_a_run_made_with_other_settings_is_refused(write, program):
    assert ran(read(write()).trials[0], program()) == 0
    with pytest.raises(ConfigError, match="was made with num_envs 4, and the sweep says 8"):
        read(write(FILE.replace("num_envs: 4", "num_envs: 8")))


# --- minding them -----------------------------------------------------------------------------------------------------


def minded(write, program, *, jobs=2, retries=1, backend=None, stop=None):
    trials = read(write()).trials
    trials[0].run_dir.parent.mkdir(parents=True, exist_ok=True)
    backend = backend or Local(jobs, 1, [], program=program)
    made = Driver(trials, backend, retries, trials[0].run_dir.parent / "sweep.csv")
    made.run(stop or threading.Event())
    return made


def test_one_bad_trial_does_not_stop_the_others(write, program):
    acts = program(d4=["done"], d8=["crash", "crash", "done"], d12=["early", "done"])
    assert states(minded(write, acts)) == [("done", 1), ("failed", 2), ("done", 2)]
    rows = index()
    assert rows["depth=8,seed=0"]["state"] == "failed"
    assert float(rows["depth=8,seed=0"]["env_steps"]) == 200
    assert rows["depth=12,seed=0"]["depth"] == "12"
    # The same again goes on with what is not done, and leaves the rest alone.
    again = minded(write, acts)
    assert states(again) == [("done", 0), ("done", 1), ("done", 0)]


def test_wrong_usage_is_not_tried_again(write, program):
    assert states(minded(write, program(d4=["wrong"]), retries=5))[0] == ("failed", 1)


def test_a_trial_that_cannot_be_started_has_failed(write, program):
    acts = [str(Path("nowhere") / "python")]
    assert states(minded(write, acts)) == 3 * [("failed", 1)]


def test_stopping_lets_all_save_themselves_and_starts_no_more(write, program):
    acts, stop = program(d4=["wait", "done"], d8=["wait", "done"]), threading.Event()
    running = [Path("runs/sweep/depth=4,seed=0/attempt_0"), Path("runs/sweep/depth=8,seed=0/attempt_0")]

    def stop_when_running():
        while not all(path.exists() for path in running):
            time.sleep(0.01)
        stop.set()

    watcher = threading.Thread(target=stop_when_running)
    watcher.start()
    made = minded(write, acts, stop=stop)
    watcher.join()
    assert states(made) == [("stopped", 1), ("stopped", 1), ("waiting", 0)]
    assert index()["depth=4,seed=0"]["state"] == "stopped"
    assert states(minded(write, acts)) == 3 * [("done", 1)]


def test_runs_share_cores_and_take_gpus_in_turn(write, program, monkeypatch):
    seen = []

    class Started:
        def __init__(self, words, *, env, **rest):
            seen.append((env["CUDA_VISIBLE_DEVICES"], [word for word in words if "threads" in word]))

        def poll(self):
            return None if len(seen) < 3 else 0

    monkeypatch.setattr(backends.subprocess, "Popen", Started)
    backend = Local(3, 2, ["0", "MIG-1"], program=program())
    for trial in read(write()).trials:
        backend.start(trial)
    assert seen == [("0", ["--num-threads=2"]), ("MIG-1", ["--num-threads=2"]), ("0", ["--num-threads=2"])]


def test_two_sweeps_do_not_share_a_directory(crl, write, tmp_path, program, monkeypatch):
    monkeypatch.setattr(Local.__init__, "__defaults__", (None, tuple(program(d8=["wrong"]))))
    write()
    # A sweep that was killed has left a run, which holds the lock it was given.
    (tmp_path / "runs" / "sweep").mkdir(parents=True)
    hold = (
        "import fcntl, sys; held = open('runs/sweep/.lock', 'w'); fcntl.flock(held, fcntl.LOCK_EX); print(flush=True)"
    )
    words = [sys.executable, "-S", "-c", f"{hold}; sys.stdin.read()"]
    left = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with left:
        left.stdout.read(1)
        refused = crl("sweep.yaml")
        left.stdin.close()
    assert refused.exit_code == 2
    assert "runs/sweep is at work" in refused.stderr
    done = crl("sweep.yaml")
    assert done.exit_code == 1, done.output
    assert "failed: depth=8,seed=0: train --env=point_maze" in done.stderr
    assert "2 done, 1 failed: runs/sweep/sweep.csv" in done.output
    assert (tmp_path / "runs" / "sweep" / "sweep.yaml").read_text() == FILE


def test_the_table_shows_what_runs_first(write, program):
    from rich.console import Console

    from crl.cli.sweep import table

    entries = [driver.Entry(trial) for trial in read(write()).trials]
    entries[0].state, entries[2].state, entries[2].attempts = "done", "running", 2
    entries[2].measured = {"env_steps": 1200, "updates": 30, "wall_time": 90, "eval/success_rate": 0.25}
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table(entries))
    lines = console.export_text().splitlines()
    assert lines[1].split() == ["depth=12,seed=0", "running", "2", "1,200", "30", "1.5", "0.25"]
    assert lines[-1].strip() == "1 done, 1 waiting, 1 running"


# --- clusters ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cluster", ["debug", pytest.param("local", marks=pytest.mark.slow)])
def test_submitit_runs_and_retries(write, program, tmp_path, cluster):
    """In this process, and in processes of submitit's own."""
    pytest.importorskip("submitit")
    acts = program(d4=["crash", "done"], d8=["wrong"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # submitit's logs of jobs in this process
        backend = Submitit(tmp_path / "submitit", {"cluster": cluster, "timeout_min": 5}, 3, acts)
        assert states(minded(write, acts, backend=backend)) == [("done", 2), ("failed", 1), ("done", 1)]


def test_submitit_s_options_are_its_own(write, tmp_path):
    pytest.importorskip("submitit")
    with pytest.raises(ConfigError, match=r"submitit: .*timeout_mins"):
        Submitit(tmp_path, {"cluster": "local", "timeout_mins": 5}, 1)


def test_an_attempt_that_has_to_make_room_saves_itself_and_comes_again(write, program):
    pytest.importorskip("submitit")
    trial = read(write()).trials[0]
    attempt = Attempt(trial, program(d4=["wait", "done"]))
    codes = []
    thread = threading.Thread(target=lambda: codes.append(attempt()))
    thread.start()
    while not (trial.run_dir / "attempt_0").exists():
        time.sleep(0.01)
    again = attempt.checkpoint()
    thread.join()
    assert codes == [130]
    assert trial.state() == STOPPED
    assert again.result() == 0
    assert trial.state() == DONE
    assert Attempt(trial, ["nothing to run"])() == 0  # it is done already


class StandIn(types.ModuleType):
    """As much of Ray's API as is used, in threads."""

    def __init__(self):
        super().__init__("ray")
        self.given, self.cancelled = [], []

    def init(self, **options):
        self.given.append(options)

    def remote(self, **options):
        self.given.append(options)

        def decorated(function):
            def start(*arguments):
                result = []
                thread = threading.Thread(target=lambda: result.append(function(*arguments)))
                thread.start()
                return thread, result, arguments

            return types.SimpleNamespace(remote=start)

        return decorated

    def wait(self, references, timeout):
        done = [reference for reference in references if not reference[0].is_alive()]
        return done, [reference for reference in references if reference not in done]

    def get(self, reference):
        return reference[1][0]

    def cancel(self, reference, force):
        assert not force
        self.cancelled.append(reference)
        reference[2][0]._save()  # as the KeyboardInterrupt does that Ray raises in the task


def test_ray_runs_and_retries(write, program, monkeypatch):
    ray = StandIn()
    monkeypatch.setitem(sys.modules, "ray", ray)
    acts = program(d4=["crash", "done"], d8=["wrong"])
    backend = Ray({"num_cpus": 2, "address": "auto"}, 3, acts)
    assert states(minded(write, acts, backend=backend)) == [("done", 2), ("failed", 1), ("done", 1)]
    assert ray.given == [
        {"address": "auto", "ignore_reinit_error": True, "log_to_driver": False},
        {"max_retries": 0, "num_cpus": 2},
    ]


def test_ray_s_tasks_are_cancelled_when_told_to_stop(write, program, monkeypatch):
    ray = StandIn()
    monkeypatch.setitem(sys.modules, "ray", ray)
    trial = read(write()).trials[0]
    job = Ray({}, 1, program(d4=["wait"])).start(trial)
    while not (trial.run_dir / "attempt_0").exists():
        time.sleep(0.01)
    assert job.poll() is None
    job.stop()
    while job.poll() is None:
        time.sleep(0.01)
    assert job.poll() == 130
    assert trial.state() == STOPPED


@pytest.mark.parametrize(("backend", "extra"), [("submitit", "slurm"), ("ray", "ray")])
def test_a_backend_that_is_not_installed_names_its_extra(crl, write, monkeypatch, backend, extra):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == backend else find(name, *more))
    result = crl(write(), "--backend", backend)
    assert result.exit_code == 2
    assert f'{backend} is not installed: pip install "crl[{extra}]"' in result.stderr


# --- the real thing ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_sweep_that_is_interrupted_goes_on(tmp_path):
    """Two runs side by side in processes of their own; Ctrl-C, and the same command again."""
    given = {**TINY, "total_env_steps": 1600, "eval_interval": 400}
    del given["depth"]
    lines = [f"  {key}: {value}" for key, value in given.items()]
    (tmp_path / "sweep.yaml").write_text("\n".join(["train:", *lines, "grid: {depth: [4, 8]}", "seeds: 1", ""]))
    code = (
        "import short_crl, sys; from crl.envs import register; register(short_crl.NAME, short_crl.make); "
        "from crl.sweep import backends; "
        "backends.Local.__init__.__defaults__ = (None, (sys.executable, short_crl.__file__)); "
        "from crl.cli import main; main(['sweep', 'sweep.yaml', '--jobs', '2'], prog_name='crl')"
    )
    places = [str(Path(short_crl.__file__).parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, places))}
    started = [sys.executable, "-c", code]
    with subprocess.Popen(started, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
        runs = [tmp_path / "runs" / "sweep" / f"depth={depth},seed=0" for depth in (4, 8)]
        while not all(checkpoint.complete(run) for run in runs):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode in (0, 130), errors
    assert "Traceback" not in errors
    done = subprocess.run(started, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {row["state"] for row in index(tmp_path / "runs" / "sweep" / "sweep.csv").values()} == {"done"}
    for run in runs:
        assert checkpoint.read_json(checkpoint.latest(run) / "state.json")["progress"]["evaluated_at"] >= 1600
