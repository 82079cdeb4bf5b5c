"""Names: lookup, nearest names, options, registration, what is needed to make an environment."""

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

import crl.envs as envs
from crl.envs import dependencies, registry
from crl.envs.point import PointMaze


@pytest.fixture
def clean_registry(monkeypatch):
    monkeypatch.setattr(registry, "_factories", dict(registry._factories))
    monkeypatch.setattr(registry, "_aliases", dict(registry._aliases))


class Corridor(PointMaze):
    """A third party's task."""

    def __init__(self, *, episode_length: int = 50) -> None:
        super().__init__("corridor", "u", episode_length=episode_length)


def test_names_are_unique_and_all_resolve():
    assert len(set(envs.names())) == len(envs.names())
    for name in envs.names():
        assert envs.spec(name).name == name
    assert not set(envs.aliases()) & set(envs.names())


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("ant_maze", "ant_u_maze"),
        ("ant_maze_eval", "ant_u_maze_eval"),
        ("point_maze", "point_u_maze"),
        ("point_maze_eval", "point_u_maze_eval"),
        ("simple_u_maze", "point_u_maze"),
        ("simple_hardest_maze", "point_hardest_maze"),
        ("cheetah", "half_cheetah"),
        ("pusher", "pusher_easy"),
        ("ant_ball_maze", "ant_ball_u_maze"),
        ("humanoid_maze", "humanoid_u_maze"),
        ("humanoid_maze_eval", "humanoid_u_maze_eval"),
    ],
)
def test_aliases(alias, name):
    assert envs.spec(alias) == envs.spec(name)
    assert envs.aliases()[alias] == name


@pytest.mark.parametrize("typed", ["ant_mze", "Ant_maze", "ant-maze", "antmaze"])
def test_unknown_name_answers_with_the_nearest(typed):
    with pytest.raises(envs.UnknownEnvironmentError, match=r"there is no environment .*Did you mean .*'ant_maze'"):
        envs.spec(typed)
    with pytest.raises(ValueError, match="ant_maze"):
        envs.make(typed, 1)


@pytest.mark.parametrize("name", ["ant_u_maze_eval_1f2f3f", "point_u4_maze_gen_1f2f", "ant_nine_rooms_maze"])
def test_names_by_rule_resolve_without_being_listed(name):
    assert envs.spec(name).name == name
    assert name not in envs.names()


@pytest.mark.parametrize("typed", ["ant_u_maze_gen_f", "ant_u_maze_gen_1", "ant_u9_maze_gen_1f", "cat_u_maze_gen_1f"])
def test_rules_do_not_stretch(typed):
    with pytest.raises(envs.UnknownEnvironmentError):
        envs.spec(typed)


def test_layout_is_an_option_of_every_maze():
    grid = "#####\n#R.G#\n#####"
    assert "3 by 5 cells of 4 m, 1 goal" in envs.spec("ant_maze", layout=grid).description
    env = envs.make("point_u_maze", 2, layout=grid)
    assert env.reset()[0]["desired_goal"].tolist() == [[4, 12], [4, 12]]
    assert "maze u3" in envs.spec("point_maze_eval", layout="u3").description
    assert "5 goals" in envs.spec("point_maze_eval", layout="u3").description  # the far ones of 10
    with pytest.raises(ValueError, match="environment 'reacher' has no option 'layout'"):
        envs.spec("reacher", layout=grid)


def test_nothing_near():
    with pytest.raises(envs.UnknownEnvironmentError, match="`crl envs` lists all"):
        envs.spec("qqqqqqqq")


def test_options_reach_the_task_and_unknown_ones_are_refused():
    assert envs.spec("ant", episode_length=7).episode_length == 7
    assert envs.make("ant", 1, episode_length=7).env_spec.episode_length == 7
    with pytest.raises(ValueError, match=r"no option 'episode_lenght'; it takes: .*Did you mean 'episode_length'\?"):
        envs.spec("ant", episode_lenght=7)
    with pytest.raises(ValueError, match="no option 'random_start'"):  # positional: a matter of the name
        envs.spec("ant", random_start=True)
    with pytest.raises(ValueError, match="episode_length must be a positive integer, got 0"):
        envs.spec("reacher", episode_length=0)
    with pytest.raises(ValueError, match="fidelity must be 'fast' or 'gymnasium', got 'high'"):
        envs.spec("ant_maze", fidelity="high")


def test_register(clean_registry):
    envs.register("corridor", Corridor, aliases=["hall"])
    assert envs.names()[-1] == "corridor"
    assert envs.spec("hall").episode_length == 50
    assert envs.make("corridor", 2, episode_length=9).reset()[0]["observation"].shape == (2, 4)
    with pytest.raises(ValueError, match="'corridor' is already registered"):
        envs.register("corridor", Corridor)
    with pytest.raises(ValueError, match="'ant_maze' is already registered"):
        envs.register("ant_maze", Corridor)
    with pytest.raises(ValueError, match="letters, digits and underscores, got 'my env'"):
        envs.register("my env", Corridor)


def test_a_factory_that_lies_is_named(clean_registry):
    envs.register("hall", Corridor)
    with pytest.raises(ValueError, match="'hall': its spec must bear that name, got 'corridor'"):
        envs.spec("hall")
    envs.register("nothing", lambda: None)
    with pytest.raises(ValueError, match=r"'nothing': its factory must return a crl.envs.Task, got NoneType"):
        envs.spec("nothing")


def test_entry_points(monkeypatch):
    points = [
        EntryPoint("corridor", f"{__name__}:Corridor", "crl.envs"),
        EntryPoint("broken", f"{__name__}:__doc__", "crl.envs"),
        EntryPoint("ant", f"{__name__}:Corridor", "crl.envs"),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == "crl.envs" else [])
    assert envs.names()[-2:] == ["corridor", "broken"]
    assert envs.spec("corridor", episode_length=3).episode_length == 3
    assert envs.spec("ant").observation_dim == 29  # a package cannot take a name of ours
    with pytest.raises(ValueError, match=r"entry point 'broken'.*must name a Task class"):
        envs.spec("broken")


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_listing_needs_no_simulator():
    code = "import sys, crl.envs as e; [e.spec(n) for n in e.names()]; print(set(sys.modules) & {'mujoco','gymnasium'})"
    assert run_python(code).strip() == "set()"


@pytest.mark.parametrize("package", ["mujoco", "gymnasium"])
def test_missing_extra_is_one_line(package, monkeypatch):
    monkeypatch.setattr(dependencies, "find_spec", lambda name: None if name == package else object())
    with pytest.raises(ImportError, match=rf'{package}, which is not installed: pip install "crl\[train\]"$'):
        envs.make("ant", 1)


@pytest.mark.parametrize(("release", "reason"), [("4.0.0", "Newton solver can diverge"), ("3.16.2", "no mujoco.batch")])
def test_unusable_mujoco_is_refused_with_the_reason(release, reason, monkeypatch):
    monkeypatch.setattr(dependencies, "version", lambda name: release)
    with pytest.raises(ImportError, match=reason):
        envs.make("ant", 1)


@pytest.mark.parametrize("release", ["3.17.0", "4.0.1", "4.1.0.dev12", "3.17.0rc1"])
def test_usable_mujoco_is_taken(release, monkeypatch):
    monkeypatch.setattr(dependencies, "version", lambda name: release)
    dependencies.require_simulator()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("observation_dim", 0, "observation_dim must be a positive integer, got 0"),
        ("episode_length", True, "episode_length must be a positive integer, got True"),
        ("dt", 0.0, "dt must be positive"),
        ("success_threshold", float("nan"), "success_threshold must be positive"),
        ("goal_indices", (0,), "goal_dim = 2 entries"),
        ("goal_indices", (0, 3), r"lie in 0..2, got \(0, 3\)"),
    ],
)
def test_inconsistent_spec_is_refused(field, value, message):
    fields = {
        "name": "x", "observation_dim": 3, "action_dim": 1, "goal_dim": 2, "goal_indices": (0, 1),
        "episode_length": 5, "success_threshold": 0.1, "action_repeat": 1, "dt": 0.1,
    }  # fmt: skip
    envs.EnvSpec(**fields)
    with pytest.raises(ValueError, match=message):
        envs.EnvSpec(**{**fields, field: value})
