"""Mazes of one's own in a run, mazes by seed, and goals that are far."""

import numpy as np
import pytest
from conftest import Quiet
from scipy.stats import chisquare

import crl.envs as envs
from crl import config, resolution, run, trainer
from crl.envs.random_mazes import random_maze
from crl.errors import ConfigError

GRID = "#####\n#RGG#\n#.#.#\n#####\n"


def test_a_run_keeps_its_layout_after_the_file_is_gone(tiny, tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text(GRID, encoding="utf-8")
    settings = {"layout": str(path), "total_env_steps": 160, "eval_interval": 160}
    result = trainer.train(tiny("own", **settings), reporter=Quiet())
    path.unlink()
    written = (result.run_dir / "config.yaml").read_text()
    assert "layout: |\n  #####\n  #RGG#\n  #.#.#\n  #####\n" in written
    assert config.read_settings(result.run_dir / "config.yaml")["layout"] == GRID
    resumed = trainer.train(resume=result.run_dir, reporter=Quiet(), total_env_steps=320)
    assert resumed.env_steps == 320
    distance = run.evaluate_run(result.run_dir, num_eval_episodes=2).final_distance
    assert distance != run.evaluate_run(result.run_dir, num_eval_episodes=2, layout="u").final_distance
    with pytest.raises(ConfigError, match=r"layout is of point_short .*; it says nothing about point_u_maze"):
        run.evaluate_run(result.run_dir, eval_env="point_maze", layout="u")


def resolved(**settings):
    return resolution.resolve(config.TrainConfig(**settings), device="cpu", num_cores=1).config


def test_an_evaluation_uses_the_layout_of_the_environment_it_is_of():
    far = resolved(env="point_maze", eval_env="point_maze_eval", layout=GRID)
    assert far.env_kwargs == far.eval_env_kwargs == {"layout": GRID}
    image = resolved(env="point_u_maze_image", eval_env="point_u_maze_eval_image", layout=GRID, num_envs=4)
    assert image.eval_env_kwargs == {"layout": GRID}
    other = resolved(env="point_maze", eval_env="point_big_maze", layout="u3")
    assert (other.env_kwargs, other.eval_env_kwargs) == ({"layout": "u3"}, {})


def test_options_of_environments_are_a_setting():
    text = "size=3, loops=0.5,fidelity=gymnasium"
    both = resolved(env="ant_random_maze", eval_env="ant_random_maze_eval", env_options=text)
    assert both.env_kwargs == both.eval_env_kwargs == {"size": 3, "loops": 0.5, "fidelity": "gymnasium"}
    assert resolved(env="ant_maze", layout="u3", env_options="episode_length=9").env_kwargs == {
        "episode_length": 9,
        "layout": "u3",
    }
    assert config.parsed_options("a=true,b=FALSE,c=1e3,d=-2,e=x=y,") == {
        "a": True,
        "b": False,
        "c": 1e3,
        "d": -2,
        "e": "x=y",
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"env": "ant_random_maze", "env_options": "size"}, "env_options must be NAME=VALUE,.*, got 'size'"),
        ({"env": "ant_random_maze", "env_options": "layout=u"}, "layout is a setting of its own"),
        ({"env": "ant_random_maze", "env_options": "syze=3"}, "no option 'syze'.*Did you mean 'size'"),
        ({"env": "ant_random_maze", "env_options": "loops=x"}, r"loops must be a share in 0\.\.1, got 'x'"),
        (
            {"env": "ant_random_maze", "eval_env": "ant_maze", "env_options": "size=3"},
            "'ant_maze' has no option 'size'",
        ),
        ({"env": "ant", "layout": "u"}, "environment 'ant' has no option 'layout'"),
        ({"env": "ant_maze", "layout": "nowhere.txt"}, "layout 'nowhere.txt': there is no such file"),
        ({"env": "ant_maze", "layout": GRID.replace(".", "?")}, r"row 2, column 1 \(from 0\) holds '\?'"),
    ],
)
def test_a_layout_that_cannot_be_is_a_configuration_error(settings, message):
    with pytest.raises(ConfigError, match=message):
        resolved(**settings)


def test_reset_says_which_goals_are_far():
    env = envs.make("point_u_maze", 64, seed=0)
    observation, info = env.reset()
    walk = {(4, 8): 1, (4, 12): 2, (8, 12): 3, (12, 12): 4, (12, 8): 5, (12, 4): 6}
    lengths = np.array([walk[tuple(goal)] for goal in observation["desired_goal"].tolist()])
    np.testing.assert_array_equal(info["far"], lengths > 3)
    assert envs.make("ant_u_maze_eval", 4).reset()[1]["far"].all()
    assert "far" not in envs.make("reacher", 1).reset()[1]
    assert "far" not in envs.make("point_u_maze_gen_1f", 1).reset()[1]


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("loops", [0.0, 0.4, 1.0])
def test_random_mazes_are_mazes(size, loops):
    inner = (size - 1) ** 2  # walls between rooms that a maze without loops has
    for seed in range(20):
        maze = random_maze(np.random.default_rng(seed), size, loops)
        assert maze.grid.shape == (2 * size + 1, 2 * size + 1)
        free = int((maze.grid != "#").sum())
        assert free == 2 * size**2 - 1 + round(loops * inner)  # Maze itself checks that all can be reached
        assert len(maze.walls()) <= size * (size - 1) + 4
        assert (maze.find("R") % 2 == 1).all()


def test_every_maze_is_as_likely():
    """2 by 2 rooms have four mazes without loops, one for each passage left out, and four rooms to start in."""
    rows = [random_maze(np.random.default_rng(seed), 2).rows for seed in range(1600)]
    counts = np.unique(rows, axis=0, return_counts=True)[1]
    assert len(counts) == 16
    assert chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 1}, "size must be .* at least 2, got 1"),
        ({"loops": 1.5}, r"loops must be a share in 0\.\.1, got 1\.5"),
    ],
)
def test_bad_random_mazes(options, message):
    with pytest.raises(ValueError, match=message):
        envs.spec("ant_random_maze", **options)


def roll(env, steps=6):
    env.reset(seed=3)
    rng = np.random.default_rng(0)
    return np.stack([env.step(rng.uniform(-1, 1, env.action_space.shape))[0]["observation"] for _ in range(steps)])


@pytest.mark.parametrize("name", ["ant_random_maze", "humanoid_random_maze", "point_random_maze_eval"])
def test_worlds_differ_by_seed_and_are_the_same_bits_at_any_thread_count(name):
    one, two, other = (
        envs.make(name, 6, seed=seed, num_threads=threads, episode_length=4)
        for seed, threads in ((1, 1), (1, 3), (2, 1))
    )
    layouts = [maze.rows for maze in one.task.mazes]
    assert len(set(layouts)) == 6
    assert layouts == [maze.rows for maze in two.task.mazes]
    assert not set(layouts) & {maze.rows for maze in other.task.mazes}
    np.testing.assert_array_equal(roll(one), roll(two))
    state = one.state_dict()
    other.load_state_dict(state)
    assert layouts == [maze.rows for maze in other.task.mazes]
    action = np.ones(one.action_space.shape)
    for _ in range(6):  # over the end of an episode
        np.testing.assert_array_equal(one.step(action)[0]["observation"], other.step(action)[0]["observation"])


def test_each_world_stands_goes_and_stops_in_its_own_maze():
    env = envs.make("point_random_maze", 12, seed=0, loops=0.3, episode_length=1)
    goals = [set() for _ in range(12)]
    far = []
    for _ in range(30):
        observation, info = env.reset()
        far.append(info["far"])
        for world, maze in enumerate(env.task.mazes):
            assert np.abs(observation["achieved_goal"][world] - maze.centres("R")[0]).max() <= 1
            cell = tuple((observation["desired_goal"][world] / 4).astype(int))
            assert maze.grid[cell] == "G"
            assert maze.far[cell] == info["far"][world]
            goals[world].add(cell)
    assert min(map(len, goals)) > 10
    assert 0.3 < np.mean(far) < 0.6
    env = envs.make("point_random_maze", 12, seed=0, loops=0.3)
    env.reset()
    for direction in ([1, 0], [0, 1], [-1, 0], [0, -1]) * 2:
        for _ in range(60):
            observation, *_ = env.step(np.tile(direction, (12, 1)))
        for world, maze in enumerate(env.task.mazes):
            cell = np.rint(observation["achieved_goal"][world] / 4).astype(int)
            assert maze.grid[tuple(cell)] != "#"


def test_an_evaluation_is_in_other_mazes_than_training(tiny):
    settings = tiny(env="point_random_maze")
    resolved = run.resolve(settings).config
    with trainer.Trainer(resolved, run.create(resolved), Quiet(), Quiet().stop, None) as made:
        worlds = (made.collector.env, made.eval_env)
        train_mazes, eval_mazes = ({maze.rows for maze in env.task.mazes} for env in worlds)
    assert not train_mazes & eval_mazes


ROOMS = ("point_spiral_11x11", "point_nine_rooms")


@pytest.mark.parametrize("name", ROOMS)
def test_a_point_in_rooms_starts_and_goes_anywhere(name):
    env = envs.make(name, 3000, seed=0, num_threads=1)
    observation, info = env.reset()
    start, goal = observation["observation"], observation["desired_goal"]
    assert np.linalg.norm(start - goal, axis=1).min() > 1
    assert "far" not in info
    free = env.task.maze.grid != "#"
    for places in (start, goal):
        cells = np.rint(places).astype(int)
        assert np.abs(places - cells).max() <= 0.3 + 1e-6
        assert set(map(tuple, cells.tolist())) == set(map(tuple, np.argwhere(free).tolist()))


@pytest.mark.parametrize(("name", "start", "goal"), [(ROOMS[0], 5, 10), (ROOMS[1], 1, 15)])
def test_the_single_goal_is_the_farthest_corner(name, start, goal):
    observation, info = envs.make(f"{name}_single_eval", 50, seed=0, num_threads=1).reset()
    assert np.abs(observation["observation"] - start).max() <= 0.3 + 1e-6
    assert np.abs(observation["desired_goal"] - goal).max() <= 0.3 + 1e-6
    assert info["far"].all()


def test_a_point_moves_by_its_action_and_walls_hold_it():
    env = envs.make(ROOMS[0], 32, seed=0, num_threads=1)
    observation, _ = env.reset()
    rng = np.random.default_rng(0)
    walls = env.task.maze.grid == "#"
    for _ in range(30):
        before = observation["observation"]
        action = rng.choice([-1.0, 1.0], (32, 2))
        observation, *_ = env.step(action)
        moved = observation["observation"] - before
        assert np.abs(moved).max() < 1.1
        assert not walls[tuple(np.rint(observation["observation"]).astype(int).T)].any()
    env.reset()
    env.batch.qpos[:], env.batch.qvel[:] = [1, 3], 0
    along = [env.step(np.tile([0.0, 0.7], (32, 1)))[0]["observation"][0, 1] for _ in range(4)]
    np.testing.assert_allclose(np.diff(along), 0.7, atol=1e-3)


def test_a_hand_written_policy_walks_the_spiral_in_time():
    env = envs.make("point_spiral_11x11_single_eval", 4, seed=0, num_threads=1)
    path = env.task.maze.corridor.astype(float)
    observation, _ = env.reset()
    leg, reached = np.zeros(4, dtype=int), np.zeros(4, dtype=bool)
    for _ in range(env.env_spec.episode_length):
        place = observation["observation"]
        leg += (np.abs(place - path[leg]).max(axis=1) < 0.3) & (leg < len(path) - 1)
        observation, *_, info = env.step(np.clip(path[leg] - place, -1, 1))
        reached |= info["success"]
    assert reached.all()
