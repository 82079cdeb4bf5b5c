"""`crl report` and `crl plot --group`: groups, curves, the page and its files; of runs written by hand."""

import csv
import dataclasses
import html
import html.parser
import math
import re
import shlex
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from crl import config, resolution, statistics
from crl.cli import main
from crl.metrics import METRICS
from crl.report import FIGURES, Report, _media, tables
from crl.report.curves import combined, over_tasks
from crl.report.published import published
from crl.report.runs import by_method, directories, load

STEPS, EVERY = 100_000, 10_000


def made(path, seed=0, *, level=0.8, until=STEPS, evaluated=True, **settings):
    """A run directory as `crl train` leaves it, but for checkpoints: success grows to `level`; stopped at `until`."""
    path.mkdir(parents=True)
    given = {"env": "point_maze", "total_env_steps": STEPS, "learning_starts": 6400, "num_threads": 1, **settings}
    resolved = resolution.resolve(config.TrainConfig(**given, seed=seed), device="cpu", num_cores=1).config
    config.write(resolved, path / "config.yaml")
    random = np.random.default_rng(seed)
    with (path / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(METRICS))
        writer.writeheader()
        for steps in range(2_000, until + 1, 2_000):
            row = {"env_steps": steps, "updates": steps // 50, "wall_time": steps / 400}
            writer.writerow({**row, "train/critic_loss": 5 * math.exp(-steps / STEPS)})
            if evaluated and steps % EVERY == 0:
                success = level * (1 - math.exp(-5 * steps / STEPS)) + random.normal(0, 0.03)
                success = round(min(1.0, max(0.0, success)), 4)
                scores = {"success_rate": success, "success_at_end": 0.8 * success, "time_at_goal": 900 * success}
                writer.writerow({**row, **{f"eval/{name}": value for name, value in scores.items()}})
    return path


@pytest.fixture
def crl(tmp_path, monkeypatch):
    """Call `crl` in an empty directory."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments, code=0):
        result = CliRunner().invoke(main, arguments, prog_name="crl")
        assert result.exit_code == code, result.output
        return result

    return call


class Reader(html.parser.HTMLParser):
    """Looks for what a browser would have to guess at or fetch."""

    VOID = ("meta", "img", "br")

    def __init__(self):
        super().__init__()
        self.open, self.fetched, self.links, self.text, self.images = [], [], [], "", 0

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        assert tag != "script"
        assert not any(name.startswith("on") for name in attrs)
        self.fetched += [value for name, value in attrs.items() if name == "src" and not value.startswith("data:")]
        self.fetched += [attrs["href"]] if tag == "link" else []
        self.links += [attrs["href"]] if tag == "a" else []
        self.images += tag == "img"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def read(index):
    reader = Reader()
    reader.feed(index.read_text(encoding="utf-8"))
    reader.close()
    assert not reader.open
    assert not reader.fetched
    for link in reader.links:
        assert link.startswith("#") or (index.parent / link).is_file(), link
    return reader


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# --- groups and names -------------------------------------------------------------------------------------------------


def test_methods_are_what_tells_runs_of_a_task_apart(tmp_path):
    runs = [
        load(made(tmp_path / f"{env}-{algorithm}-{seed}", seed, env=env, algorithm=algorithm))
        for env in ("point_maze", "reacher")
        for algorithm in ("crl", "sac")
        for seed in (0, 1)
    ]
    methods = by_method(runs)  # reacher's recipe has another gamma, which is not another method
    assert list(methods) == ["algorithm crl", "algorithm sac"]
    for tasks in methods.values():
        assert {task: len(members) for task, members in tasks.items()} == {"point_u_maze": 2, "reacher": 2}


def test_names_say_no_more_than_they_must(tmp_path):
    made(tmp_path / "a", 0, depth=4, width=32)
    made(tmp_path / "b", 0, depth=8, width=64)
    made(tmp_path / "c", 1, depth=8, width=64)
    runs = [load(path) for path in directories([tmp_path])]
    assert {name: len(tasks["point_u_maze"]) for name, tasks in by_method(runs).items()} == {"depth 4": 1, "depth 8": 2}
    assert list(by_method(runs[1:])) == ["crl, depth 8"]
    made(tmp_path / "d", 0, depth=4, width=64)
    runs = [load(path) for path in directories([tmp_path])]
    assert list(by_method(runs)) == ["depth 4, width 32", "depth 8, width 64", "depth 4, width 64"]


def test_a_run_older_than_a_setting_is_of_the_group_that_has_its_default(tmp_path):
    older, newer = made(tmp_path / "older"), made(tmp_path / "newer", seed=1)
    lines = (older / "config.yaml").read_text().splitlines()
    assert "normalize_observations: false" in lines
    (older / "config.yaml").write_text("\n".join(line for line in lines if not line.startswith("normalize_")))
    ((members,),) = (tasks.values() for tasks in by_method([load(older), load(newer)]).values())
    assert len(members) == 2


def test_depths_of_two_tasks_are_two_methods(tmp_path):
    made(tmp_path / "a", env="point_maze", depth=4)
    made(tmp_path / "b", env="reacher", depth=8)
    assert list(by_method([load(tmp_path / "a"), load(tmp_path / "b")])) == ["depth 4", "depth 8"]


# --- curves -----------------------------------------------------------------------------------------------------------


def test_curve_is_the_iqm_in_its_interval(tmp_path):
    runs = [load(made(tmp_path / f"{seed}", seed)) for seed in range(5)]
    curve = combined(runs, "eval/success_rate", "env_steps")
    assert curve.x.tolist() == list(range(EVERY, STEPS + 1, EVERY))
    for point in (0, 9):
        scores = np.array([[run.curve("eval/success_rate", "env_steps")[1][point]] for run in runs])
        assert curve.value[point] == pytest.approx(float(statistics.iqm(scores)))
        ends = statistics.interval(statistics.iqm, scores)
        np.testing.assert_allclose([curve.low[point], curve.high[point]], ends)


def test_a_curve_goes_on_with_those_that_are_left(tmp_path):
    runs = [load(made(tmp_path / f"{seed}", seed, until=until)) for seed, until in enumerate((STEPS, 50_000, 30_000))]
    curve = combined(runs, "eval/success_rate", "env_steps")
    assert curve.runs.tolist() == [3, 3, 3, 2, 2, 1, 1, 1, 1, 1]
    np.testing.assert_array_equal(curve.value[5:], runs[0].curve("eval/success_rate", "env_steps")[1][5:])
    assert [(curve.x[points].tolist(), count) for points, count in curve.stretches()][1] == ([30000, 40000, 50000], 2)
    assert not np.array_equal(curve.low[:5], curve.high[:5])
    np.testing.assert_array_equal(curve.low[5:], curve.high[5:])


def test_along_wall_time_a_finished_run_keeps_its_last_value(tmp_path):
    quick, slow = load(made(tmp_path / "quick")), load(made(tmp_path / "slow", 1))
    slow = dataclasses.replace(slow, rows=[{**row, "wall_time": 3 * row["wall_time"]} for row in slow.rows])
    curve = combined([quick, slow], "eval/success_rate", "wall_time")
    ends = [run.curve("eval/success_rate", "wall_time")[1][-1] for run in (quick, slow)]
    assert curve.value[-1] == pytest.approx(np.mean(ends))
    stopped = load(made(tmp_path / "stopped", until=50_000))
    assert combined([stopped, slow], "eval/success_rate", "wall_time").runs[-1] == 1


def test_curve_over_tasks_is_by_share_of_the_run(tmp_path):
    short = load(made(tmp_path / "short", total_env_steps=50_000, until=50_000))
    long = load(made(tmp_path / "long"))
    curve = over_tasks([[short], [long]], "eval/success_rate", points=3)
    ends = [run.curve("eval/success_rate", "env_steps")[1][-1] for run in (short, long)]
    assert (curve.x[0], curve.x[-1]) == (0.2, 1)
    assert curve.value[-1] == pytest.approx(np.mean(ends))
    assert over_tasks([[short], [load(made(tmp_path / "none", evaluated=False))]], "eval/success_rate") is None


# --- scores -----------------------------------------------------------------------------------------------------------


def test_score_is_the_mean_of_the_last_tenth(tmp_path):
    run = load(made(tmp_path / "run"))
    values = run.curve("eval/success_rate", "env_steps")[1]
    assert run.score("eval/success_rate") == pytest.approx(values[-2:].mean())  # at 90,000 and at 100,000
    assert run.finished
    assert load(made(tmp_path / "none", evaluated=False)).score("eval/success_rate") is None


def test_unfinished_runs_count_only_while_none_is_finished(tmp_path):
    whole, half = load(made(tmp_path / "a", 0)), load(made(tmp_path / "b", 1, until=50_000))
    crashed = load(made(tmp_path / "c", 2, until=4_000))
    assert not half.finished
    assert half.share_done == 0.5
    assert tables.counted([half, whole, crashed], "eval/success_rate") == [whole]
    assert tables.counted([half, crashed], "eval/success_rate") == [half]


def test_published_figures_stand_beside_their_task(tmp_path):
    run = load(made(tmp_path / "run", env="ant_big_maze", eval_env="ant_big_maze_eval", depth=4))
    figures = published(run.settings)
    assert [(figure.method, str(figure)) for figure in figures] == [
        ("CRL, depth 4", "61 ± 20"),
        ("CRL, depth 64", "441 ± 25"),
    ]
    assert all("spring physics" in figure.conditions and "Wang" in figure.source for figure in figures)
    found = tables.results(by_method([run]))
    column = found.columns.index("eval/time_at_goal")
    assert [row[column : column + 3] for row in found.rows[1:]] == [[61, 41, 81], [441, 416, 466]]
    assert not published({**run.settings, "eval_env": "ant_big_maze"})  # scored on far goals alone
    assert not published({**run.settings, "layout": "u"})


# --- the page ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """The report on two depths on two tasks, three seeds each, of which one run has stopped early; in a folder."""
    folder = tmp_path_factory.mktemp("swept")
    for env in ("point_maze", "reacher"):
        for depth, level in ((4, 0.6), (8, 0.9)):
            for seed in range(3):
                until = 40_000 if (env, depth, seed) == ("reacher", 8, 2) else STEPS
                name = f"runs/{env},depth={depth},seed={seed}"
                made(folder / name, seed, level=level, until=until, env=env, depth=depth)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = CliRunner().invoke(main, ["report", "runs"], prog_name="crl")
    assert result.exit_code == 0, result.output
    return folder


CURVES = ("success_rate", "success_at_end", "time_at_goal", "critic_loss")


def test_report_of_a_sweep(swept):
    index = swept / "report" / "index.html"
    reader = read(index)
    assert index.stat().st_size < 10_000_000
    for heading in ("Results", "Learning curves", "Comparison", "Wall time and compute", "Maps and videos", "Settings"):
        assert heading in reader.text
    drawn = {path.stem for path in (swept / "report").glob("*.png")}
    assert drawn == {*FIGURES, "wall_time", *(f"curves_{name}" for name in CURVES)}
    assert reader.images == len(drawn)
    assert "compared are the first 2 of each" in reader.text
    results = table(swept / "report" / "results.csv")
    assert [(row["task"], row["method"], row["finished"]) for row in results] == [
        ("point_u_maze", "depth 4", "3"),
        ("point_u_maze", "depth 8", "3"),
        ("reacher", "depth 4", "3"),
        ("reacher", "depth 8", "2"),
    ]
    for row in results:
        low, value, high = (float(row[f"eval/success_rate{end}"]) for end in (" low", "", " high"))
        assert low <= value <= high
    assert float(table(swept / "report" / "improvement.csv")[0]["probability"]) > 0.9  # of depth 8 over 4
    compute = table(swept / "report" / "compute.csv")
    assert len(compute) == 12
    assert sorted(row["state"] for row in compute) == ["40 %", *11 * ["finished"]]
    assert all(float(row["parameters"]) > 1000 and float(row["pflop"]) > 0 for row in compute)


@pytest.mark.slow
def test_every_command_on_the_page_makes_its_figure(crl, swept, tmp_path):
    shutil.copytree(swept / "runs", "runs")
    commands = re.findall(r"<pre>crl (.*?)</pre>", (swept / "report" / "index.html").read_text())
    for command in commands:
        crl(*shlex.split(html.unescape(command)))
    before = {path.name: path.read_bytes() for path in (swept / "report").glob("*.png")}
    after = {path.name: path.read_bytes() for path in (tmp_path / "report").glob("*.png")}
    assert after.keys() == before.keys()
    # The same but for curves, behind which a report shows single runs.
    assert {name for name in before if before[name] == after[name]} == {f"{name}.png" for name in FIGURES}


def test_plot_groups_runs_in_a_panel_for_each_task(crl, swept, tmp_path):
    crl("plot", str(swept / "runs"), "--group", "--metric", "eval/success_rate", "--output", "curves.svg")
    drawn = (tmp_path / "curves.svg").read_text()
    for text in ("success rate, point_u_maze", "success rate, reacher", "depth 4 (3 seeds)", "depth 8 (3 seeds)"):
        assert f"<!-- {text} -->" in drawn


def test_names_are_escaped_and_a_damaged_run_is_left_out(crl, tmp_path):
    path, damaged = made(tmp_path / "<b>&'run"), made(tmp_path / "damaged")
    (damaged / "metrics.csv").write_text("env_steps\nabc\n")
    crl("report", str(path), str(damaged))
    reader = read(tmp_path / "report" / "index.html")
    assert "Left out: " in reader.text
    assert "<b>" not in (tmp_path / "report" / "index.html").read_text()
    assert "<b>&'run" in reader.text
    (row,) = table(tmp_path / "report" / "results.csv")
    assert row["eval/success_rate"]
    assert not row["eval/success_rate low"]  # of one run there is no interval


@pytest.mark.parametrize("rows", [True, False])
def test_report_of_runs_that_have_not_been_evaluated(crl, tmp_path, rows):
    path = made(tmp_path / "run", evaluated=False)
    if not rows:
        (path / "metrics.csv").write_text(",".join(METRICS) + "\n")
    crl("report", "run")
    reader = read(tmp_path / "report" / "index.html")
    assert reader.images == rows
    assert ("No run has been evaluated yet" in reader.text) == (not rows)


def test_maps_and_videos_of_runs_are_on_the_page(tmp_path, monkeypatch):
    run = load(made(tmp_path / "run"))
    videos = run.path / "videos"
    videos.mkdir()
    for name in ("point-step_5.png", "point-step_5_paths.png", "point-step_5.mp4", "notes.txt"):
        (videos / name).write_bytes(b"x" * 1000)
    report = Report([str(run.path)], [run], [], by_method([run]), tmp_path, "eval/success_rate")
    text = _media(report, None)
    assert (text.count("<video"), text.count("<img")) == (1, 2)
    assert f"crl render {run.path} --paths" in text
    monkeypatch.setattr("crl.report.MEDIA_BUDGET", 1500)
    text = _media(report, None)
    assert (text.count("<video"), text.count("<img")) == (0, 1)
    assert "Too large for this page: " in text


def test_the_same_runs_give_the_same_files(crl, tmp_path):
    made(tmp_path / "run")
    for output in ("a", "b"):
        crl("report", "run", "--output", output, "--only", "profile")
    for name in ("profile.png", "profile.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nowhere"], 1, "no such directory"),
        (["empty"], 1, "is no run, and has none in it"),
        (["run", "--metric", "eval/sucess_rate"], 2, "Did you mean 'eval/success_rate'"),
        (["run", "--metric", "eval/final_distance"], 1, "none of the runs has measured eval/final_distance"),
        (["run", "--only", "profil"], 2, "Did you mean 'profile'"),
        (["run", "--only", "improvement"], 2, "nothing to draw of 1 run"),
    ],
)
def test_mistakes_get_one_line(crl, tmp_path, arguments, code, words):
    made(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    result = crl("report", *arguments, code=code)
    assert words in result.stderr
    assert len([line for line in result.stderr.splitlines() if line.startswith("Error: ")]) == 1
