"""Environments of other projects: what the collector stores of them, in every mode and number of processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import Quiet
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from scripted_goals import HIGH, LENGTHS, LOW, NAME, Scripted, ScriptedImages

import crl
from crl import checkpoint, envs
from crl.cli import main
from crl.collector import Collector
from crl.config import TrainConfig
from crl.envs import adapters, goal_env, third_party
from crl.errors import MissingExtraError
from crl.evaluation import evaluate
from crl.presets import adapted_recipe

WORLDS = 3
IMAGES = NAME.replace("Scripted-", "ScriptedImages-")


class ByWhatItSees:
    """Acts so that each action tells what it was made from, in [-1, 1]."""

    def act(self, observation, goal, deterministic=False):
        seen = observation @ np.float32([[1e-4], [1e-2], [1e-1]])
        return torch.from_numpy(np.sin(np.hstack([seen, seen + goal])).astype(np.float32))


def collected(env, steps=40):
    """A buffer filled by the collector, more than once over."""
    buffer = crl.TrajectoryBuffer(WORLDS, 3 * WORLDS * 29, observation=(3,), action=(2,), achieved_goal=(1,), seed=1)
    collector = Collector(env, ByWhatItSees(), buffer, seed=5)
    assert collector.collect(steps - 7) + collector.collect(7) == WORLDS * steps
    return buffer


def drawn(buffer):
    """All (state, action, next state) that learning can draw, each with the last moment of its trajectory."""
    batch = buffer.sample(20_000, goal="final", columns=("next_observation",))
    np.testing.assert_array_equal(batch.goal[:, 0] - batch.observation[:, 2], batch.offset)
    rows = np.concatenate([batch.observation, batch.action, batch.next_observation, batch.goal], axis=1)
    return {tuple(row) for row in rows.tolist()}


def taken(worlds):
    """The same, of all the steps that scripted worlds took in episodes that they finished."""
    steps = set()
    for world in worlds:
        finals = {step[0][1]: step[2][2] for step in world.unwrapped.happened if step[3]}
        for before, action, after, _ in world.unwrapped.happened:
            if before[1] in finals:
                action = 2 * (np.array(action) - LOW) / (HIGH - LOW) - 1
                steps.add((*before, *np.round(action, 5), *after, finals[before[1]]))
    return steps


def rounded(rows):
    return {(*row[:3], *np.round(row[3:5], 5), *row[5:]) for row in rows}


@pytest.mark.parametrize("mode", AutoresetMode)
def test_what_is_learnt_from_is_what_happened_in_every_mode(mode):
    worlds = gymnasium.make_vec(
        "Scripted-v0", WORLDS, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode}
    )
    rows, truth = rounded(drawn(collected(envs.wrap(worlds)))), taken(worlds.envs)
    # The buffer has overwritten nothing here; an episode that is not over yet has another last moment.
    assert truth <= rows
    unfinished = {row for row in rows if row not in truth}
    newest = {(env.unwrapped.world, env.unwrapped.episode) for env in worlds.envs}
    assert {row[:2] for row in unfinished} <= newest
    assert len(truth) > WORLDS * 20


@pytest.mark.parametrize("fed_as", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_a_mode_that_is_taken_for_another_would_be_noticed(fed_as):
    worlds = SyncVectorEnv([Scripted] * WORLDS, autoreset_mode=AutoresetMode.SAME_STEP)
    worlds.metadata["autoreset_mode"] = fed_as
    env = envs.wrap(worlds, episode_length=4, success_threshold=0.5)
    with pytest.raises(AssertionError):
        assert taken(worlds.envs) <= rounded(drawn(collected(env)))


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("tells", ["is_success", "success", ""])
def test_success_and_distance_are_those_of_the_step_that_was_made(mode, tells):
    worlds = SyncVectorEnv([lambda: Scripted(tells)] * 2, autoreset_mode=mode)
    env = envs.wrap(worlds, episode_length=4, success_threshold=0.5)
    env.reset(seed=0)
    told = []
    for _ in range(12):
        *_, reward, _, _, info = env.step(np.zeros((2, 2)))
        np.testing.assert_array_equal(reward, info["success"])
        np.testing.assert_array_equal(info["success"], info["distance"] == 0)
        told.append(info["distance"][0])
    moments = [m for length in LENGTHS for m in range(0 if mode == AutoresetMode.NEXT_STEP else 1, length + 1)]
    skipped = 1 if mode == AutoresetMode.NEXT_STEP else 0  # the first reset is no step
    np.testing.assert_array_equal(told[:8], [abs(3 - m) for m in (moments * 3)[skipped:][:8]])


@pytest.mark.parametrize("mode", AutoresetMode)
def test_evaluation_counts_a_success_in_the_last_step(mode):
    worlds = SyncVectorEnv([Scripted] * 4, autoreset_mode=mode)
    outcome = evaluate(ByWhatItSees(), envs.wrap(worlds, episode_length=4), seed=0)
    assert (outcome.success_rate, outcome.success_at_end, outcome.time_at_goal, outcome.final_distance) == (1, 1, 1, 0)


def test_processes_make_no_difference_but_speed():
    def rows(workers):
        env = envs.make(NAME, 4, seed=9, workers=workers)
        shown = [env.reset()[0]]
        for _ in range(11):
            action = env.single_action_space.high * np.linspace(-1, 1, 8, dtype=np.float32).reshape(4, 2)
            observation, reward, terminated, truncated, info = env.step(action)
            shown.append({**observation, **info, "r": reward, "te": terminated, "tr": truncated})
        assert env.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
        env.close()
        return shown

    for one, two in zip(rows(0), rows(3), strict=True):  # 3 have no equal shares of 4: it takes 2
        assert one.keys() == two.keys()
        for key in one:
            assert one[key].dtype == two[key].dtype
            np.testing.assert_array_equal(one[key], two[key])


def test_an_asynchronous_vector_environment_can_be_wrapped():
    worlds = AsyncVectorEnv([Scripted] * WORLDS, autoreset_mode=AutoresetMode.DISABLED, context="forkserver")
    reference = SyncVectorEnv([Scripted] * WORLDS, autoreset_mode=AutoresetMode.SAME_STEP)
    rows = drawn(collected(envs.wrap(worlds, episode_length=4)))
    assert rows == drawn(collected(envs.wrap(reference, episode_length=4)))
    worlds.close()


@pytest.mark.parametrize("mode", AutoresetMode)
def test_images_are_those_of_the_same_worlds_with_numbers(mode):
    """And how far a goal is has been told, by a reset too; pixels are not measured."""
    numbers, images = (
        envs.wrap(SyncVectorEnv([world] * WORLDS, autoreset_mode=mode), episode_length=4)
        for world in (Scripted, ScriptedImages)
    )
    assert images.env_spec.image == (2, 2, 3)
    (state, _), (shown, info) = numbers.reset(seed=5), images.reset(seed=5)
    for step in range(20):
        assert images.observation_space.contains(shown)
        np.testing.assert_array_equal(shown["observation"][:, :3], state["observation"] % 256)
        np.testing.assert_array_equal(shown["achieved_goal"], shown["observation"])
        np.testing.assert_array_equal(shown["desired_goal"], np.uint8([[0, 0, 3, *[0] * 9]] * WORLDS))
        if step == 0 or mode == AutoresetMode.NEXT_STEP:
            np.testing.assert_array_equal(info["distance"], np.abs(3 - state["observation"][:, 2]))
        action = np.zeros((WORLDS, 2))
        state, reward, *ends, told = numbers.step(action)
        shown, same, *same_ends, info = images.step(action)
        np.testing.assert_array_equal([same, *same_ends, info["success"]], [reward, *ends, told["success"]])
        if mode != AutoresetMode.NEXT_STEP and "final_obs" in info:
            for image, place in zip(info["final_obs"], told["final_obs"], strict=True):
                if place is not None:
                    np.testing.assert_array_equal(image["observation"][:3], place["observation"] % 256)


def test_images_pass_through_processes_and_a_run(tmp_path, monkeypatch):
    env = envs.make(IMAGES, 4, seed=1, workers=2)
    same = envs.make(IMAGES, 4, seed=1, workers=0)
    for one, two in ((env.reset(), same.reset()), (env.step(np.zeros((4, 2))), same.step(np.zeros((4, 2))))):
        np.testing.assert_array_equal(one[0]["observation"], two[0]["observation"])
        np.testing.assert_array_equal(one[-1]["distance"], two[-1]["distance"])
        assert one[0]["desired_goal"].dtype == np.uint8
    env.close()
    make = goal_env.make
    monkeypatch.setattr(goal_env, "make", lambda *given, **named: make(*given, **{**named, "workers": 0}))
    settings = {**TINY, "env": IMAGES, "image_encoder": "residual", "crop_padding": 1, "total_env_steps": 80}
    run = crl.train(TrainConfig(**{**settings, "eval_interval": 80}, run_dir=str(tmp_path / "run"))).run_dir
    buffer = crl.TrajectoryBuffer.load(checkpoint.latest(run) / "buffer.crlb")
    batch = buffer.sample(1000, goal="final")
    assert batch.goal.dtype == np.uint8
    np.testing.assert_array_equal(batch.goal[:, 2] - batch.observation[:, 2], batch.offset)
    np.testing.assert_array_equal(batch.goal[:, :2], batch.observation[:, :2])


def test_seeds():
    def worlds_of(seed):
        return envs.make(NAME, 8, seed=seed, workers=0).reset()[0]["observation"][:, 0]

    np.testing.assert_array_equal(worlds_of(3), worlds_of(3))
    assert len({*worlds_of(3), *worlds_of(4)}) == 16  # neighbouring seeds share no world
    env = envs.make(NAME, 8, seed=3, workers=0)
    env.reset(seed=4)
    first = env.reset()[0]["observation"]
    np.testing.assert_array_equal(first[:, 0], worlds_of(4))
    assert (first[:, 1] == 1).all()  # without a seed the next episodes follow


def test_actions_reach_the_bounds_and_no_further():
    env = envs.make(NAME, 1, workers=0)
    env.reset()
    for action in ([[-1, -1]], [[1, 1]], [[-9, 9]]):
        env.step(action)
    steps = env.env.envs[0].unwrapped.happened
    np.testing.assert_allclose([step[1] for step in steps], [LOW, HIGH, [LOW[0], HIGH[1]]])
    for wrong in ([[0, np.nan]], [[0, 0, 0]], [0, 0]):
        with pytest.raises(ValueError, match=r"actions: expected finite numbers of shape \(1, 2\)"):
            env.step(wrong)


def test_spec():
    spec = envs.spec(NAME)
    assert (spec.observation_dim, spec.action_dim, spec.goal_dim, spec.goal_indices) == (3, 2, 1, ())
    assert (spec.episode_length, spec.success_threshold, spec.dt) == (50, 0, 0.5)
    assert spec.success == "info['is_success']"
    assert envs.spec(NAME, episode_length=7, workers=2).episode_length == 7
    assert envs.spec(NAME, tells="", success_threshold=0.5).success == "within 0.5"
    assert envs.spec(NAME, episode_length=7) is envs.spec(NAME, episode_length=7)  # no second environment is made


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gymnasum:Scripted-v0", {}, r"names with a colon are gymnasium:NAME.*Did you mean 'gymnasium'\?"),
        ("gymnasium:", {}, "names with a colon are gymnasium:NAME"),
        ("gymnasium:Scriptd-v0", {}, r"gymnasium has no environment 'Scriptd-v0'. Did you mean .*'Scripted-v0'"),
        ("gymnasium:Scripted", {}, r"no environment 'Scripted'. Did you mean .*'Scripted-v0'"),
        ("gymnasium:no_such_module:Scripted-v0", {}, "there is no module 'no_such_module'"),
        (
            "gymnasium:FetchSlide-v4_image",
            {},
            "FetchSlide-v4 has no images; these have: FetchReach-v4_image",
        ),
        ("metaworld:reach_image", {}, "reach_image is no goal task; these are: push_image, bin-picking_image"),
        ("gymnasium:CartPole-v1", {}, "CartPole-v1 is no goal environment: it must show a dict of observation"),
        (NAME, {"picture": True}, "must be vectors, or images alike in bytes"),
        (IMAGES, {"tells": ""}, "shows images, .* info must have distance and is_success or success"),
        (IMAGES, {"told": "afar"}, "shows images, .* info must have distance and is_success or success"),
        (IMAGES, {"alike": False}, "an image's achieved_goal must be the observation"),
        ("gymnasium:ScriptedForever-v0", {}, "has no time limit: give episode_length"),
        (NAME, {"tells": ""}, "does not tell when it is at its goal: give success_threshold"),
        (NAME, {"workers": 9}, "workers: expected 0 to 2; got 9"),
        ("gymnasium:Reacher-v5", {"nonsense": 1}, "unexpected keyword argument 'nonsense'"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(name, options, message):
    with pytest.raises(ValueError, match=message) as error:
        envs.make(name, 2, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["gymnasium:FetchReach-v4", "ogbench:cube-single-v0", "metaworld:push-v3"])
def test_missing_packages_are_named_with_the_remedy(name, monkeypatch):
    monkeypatch.setattr(third_party, "find_spec", lambda package: None)
    monkeypatch.setattr(gymnasium, "registry", {})
    with pytest.raises(ImportError, match=rf"{name} needs .*pip install") as error:
        envs.make(name, 2)
    assert "\n" not in str(error.value)


def test_goals_cannot_be_commanded_and_success_must_be_told():
    env = envs.wrap(SyncVectorEnv([lambda: Scripted("")] * 2), episode_length=4)
    with pytest.raises(ValueError, match=r"options\['goal'\] cannot be commanded here"):
        env.reset(options={"goal": np.zeros(1)})
    env.reset()
    with pytest.raises(ValueError, match="info has neither is_success nor success: give success_threshold"):
        env.step(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="no time limit that is known"):
        envs.wrap(SyncVectorEnv([Scripted] * 2))


def test_command_line_describes_it():
    done = CliRunner().invoke(main, ["envs", NAME])
    assert done.exit_code == 0, done.output
    assert "3 entries; as the environment shows it" in done.output
    assert "info['is_success']" in done.output
    done = CliRunner().invoke(main, ["render", "--env", NAME, "--random"])
    assert (done.exit_code, "draws the worlds of `crl envs`" in done.output) == (2, True)


def test_discount_follows_the_length_of_episodes():
    gammas = [adapted_recipe(length)["gamma"] for length in (1, 5, 50, 150, 300, 1000)]
    np.testing.assert_allclose(gammas, [0.5, 0.5, 0.9, 1 - 1 / 30, 1 - 1 / 60, 0.99])


TINY = {
    "env": NAME, "depth": 4, "width": 16, "representation_dim": 8, "batch_size": 16, "num_envs": 4, "unroll_length": 10,
    "updates_per_collect": 4, "learning_starts": 40, "buffer_capacity": 4000, "total_env_steps": 400,
    "eval_interval": 200, "num_eval_episodes": 4, "num_threads": 1, "device": "cpu",
}  # fmt: skip


def test_a_run_goes_on_with_new_episodes(tmp_path, monkeypatch):
    make = goal_env.make
    monkeypatch.setattr(goal_env, "make", lambda *given, **named: make(*given, **{**named, "workers": 0}))
    reporter = Quiet()
    reporter.stop_when = lambda progress: progress.updates == 18
    run = crl.train(TrainConfig(**TINY, run_dir=str(tmp_path / "run")), reporter=reporter, stop=reporter.stop).run_dir
    before = crl.TrajectoryBuffer.load(checkpoint.latest(run) / "buffer.crlb")
    reporter = Quiet()
    assert crl.train(resume=run, reporter=reporter).env_steps == 400
    assert reporter.text().count("have no state that can be saved: new episodes start here") == 1
    after = crl.TrajectoryBuffer.load(checkpoint.latest(run) / "buffer.crlb")
    assert (len(before), len(after)) == (200, 400)
    batch = after.sample(10_000, goal="final")
    # World and episode are observed: every goal is the last moment of the state's own episode.
    np.testing.assert_array_equal(batch.goal[:, 0] - batch.observation[:, 2], batch.offset)
    assert len(np.unique(batch.observation[:, 0])) == 8  # of 4 worlds, each seeded anew


@pytest.mark.slow
def test_ctrl_c_reaches_the_learner_alone(tmp_path):
    """It goes to all processes of a terminal; those that step worlds leave it to the learner, which saves."""
    run = tmp_path / "run"
    settings = {**TINY, "total_env_steps": 10**6, "eval_interval": 400, "buffer_capacity": 10**5}
    options = [f"--{key.replace('_', '-')}={value}" for key, value in settings.items()]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, "-m", "crl", "train", *options, f"--run-dir={run}"]
    with subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.PIPE) as process:
        while not checkpoint.complete(run):
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert b"Traceback" not in errors


# --- with other projects' packages -----------------------------------------------------------------------------------

PIXELS = 64 * 64 * 3
ROBOTS = {
    # observation, action, goal, episode_length, success_threshold
    "gymnasium:FetchReach-v4": (10, 4, 3, 50, 0.05),
    "gymnasium:FetchPush-v4": (25, 4, 3, 50, 0.05),
    "gymnasium:PointMaze_UMaze-v3": (4, 2, 2, 300, 0),
    "gymnasium:AntMaze_UMaze-v5": (105, 8, 2, 700, 0),
    "ogbench:pointmaze-medium-navigate-v0": (2, 2, 2, 1000, 0),
    "ogbench:antmaze-medium-v0": (29, 8, 2, 1000, 0),
    "ogbench:antsoccer-arena-navigate-v0": (42, 8, 2, 1000, 0),
    "ogbench:cube-single-play-v0": (28, 5, 3, 200, 0),
    "ogbench:scene-v0": (40, 5, 7, 750, 0),
    "ogbench:puzzle-3x3-v0": (55, 5, 9, 500, 0),
    "metaworld:reach": (18, 4, 3, 150, 0),
    "metaworld:push": (18, 4, 7, 150, 0),
    "metaworld:bin-picking-v3": (18, 4, 7, 150, 0),
    "metaworld:box-close-v3": (18, 4, 7, 150, 0),
    "metaworld:peg-insert-side": (18, 4, 7, 150, 0),
    "gymnasium:FetchReach-v4_image": (PIXELS, 4, PIXELS, 50, 0.05),
    "gymnasium:FetchPush-v4_image": (PIXELS, 4, PIXELS, 50, 0.05),
    "metaworld:push_image": (PIXELS, 4, PIXELS, 150, 0),
    "metaworld:bin-picking-v3_image": (PIXELS, 4, PIXELS, 150, 0),
}
NOISE = (
    "ignore:.*Box (low|high)'s precision lowered",
    "ignore:.*X11",
    "ignore:.*out of date",
    "ignore::DeprecationWarning",
)


@pytest.fixture
def needed(name):
    """Skip what has no package or nothing to draw with."""
    if name.startswith("metaworld"):
        pytest.importorskip("metaworld")  # no extra has it: docs/adapters.md says why
    if name.endswith("_image"):
        from crl.rendering import backend

        try:
            backend()
        except MissingExtraError as error:
            pytest.skip(str(error))


@pytest.mark.peers
@pytest.mark.filterwarnings(*NOISE)
@pytest.mark.usefixtures("needed")
@pytest.mark.parametrize("name", ROBOTS)
def test_what_is_known_of_other_projects_holds(name):
    spec = envs.spec(name)
    sizes = (spec.observation_dim, spec.action_dim, spec.goal_dim, spec.episode_length, spec.success_threshold)
    assert sizes == ROBOTS[name]
    first, again, other = (envs.make(name, 4, seed=seed, workers=0, episode_length=3) for seed in (1, 1, 2))
    shown = first.reset()[0]
    for key, array in again.reset()[0].items():
        np.testing.assert_allclose(array, shown[key], atol=1e-4)
    different = other.reset()[0]
    assert any(not np.allclose(different[key], shown[key]) for key in ("desired_goal", "observation"))
    goals, moved = [shown["desired_goal"]], False
    random = np.random.default_rng(0)
    for step in range(1, 9):
        shown, reward, terminated, truncated, info = first.step(random.uniform(-1, 1, (4, spec.action_dim)))
        assert not terminated.any()
        assert truncated.all() == (step % 4 == 3)  # NEXT_STEP: three steps, then the reset
        assert not reward[info["distance"] > 0.2].any() or name.startswith("ogbench")
        goals.append(shown["desired_goal"])
        moved = moved or not np.allclose(shown["achieved_goal"], goals[0])
    assert moved
    if name not in ("metaworld:bin-picking-v3",):  # whose bin stays where it is
        assert len(np.unique(np.concatenate(goals), axis=0)) > 1
    for env in (first, again, other):
        env.close()


@pytest.mark.peers
@pytest.mark.parametrize("name", ["gymnasium:FetchReach-v4", "metaworld:reach"])
@pytest.mark.filterwarnings(*NOISE)
def test_moving_to_the_goal_succeeds(name):
    """Both arms take displacements of the hand as actions: a hand-written policy, and success follows from distance."""
    if name.startswith("metaworld"):
        pytest.importorskip("metaworld")
    env = envs.make(name, 4, seed=0, workers=0)
    shown, _ = env.reset()
    for _ in range(45):
        towards = 10 * (shown["desired_goal"] - shown["achieved_goal"])
        shown, _, _, _, info = env.step(np.hstack([towards, np.zeros((4, 1))]))
    assert info["success"].all()
    assert (info["distance"] < 0.05).all()
    env.close()


@pytest.mark.peers
@pytest.mark.filterwarnings(*NOISE)
@pytest.mark.usefixtures("needed")
@pytest.mark.parametrize("name", [name for name in ROBOTS if name.endswith("_image")])
def test_a_robot_that_is_where_the_goal_was_seen_looks_like_it(name):
    """What achieves the goal is the image of it, and no other; everything is drawn from the seed."""
    world = adapters._maker(name, {})().unwrapped
    data, goals = world._world.data, []
    for seed in (1, 2, 1):
        shown, info = world.reset(seed=seed)
        started = shown["observation"]
        # The goal's state is arranged once more, by hand.
        world.reset(seed=seed)
        world.np_random, _ = gymnasium.utils.seeding.np_random(seed)
        world._until_well(world._to_goal)
        assert world._distance() < 1e-6 < 0.02 < info["distance"]
        again = world._look()
        np.testing.assert_array_equal(again, shown["desired_goal"])
        assert np.abs(started.astype(int) - again).mean() > 2
        goals.append(shown["desired_goal"])
    np.testing.assert_array_equal(goals[0], goals[2])
    assert np.abs(goals[0].astype(int) - goals[1]).mean() > 0.5
    before = world._look()
    data.site_xpos[:] += 0.1  # markers are not seen
    np.testing.assert_array_equal(world._look(), before)
    world.close()


@pytest.mark.peers
@pytest.mark.filterwarnings(*NOISE)
@pytest.mark.usefixtures("needed")
@pytest.mark.parametrize("name", ["gymnasium:FetchReach-v4_image"])
def test_a_hand_driven_to_the_goal_of_an_image_succeeds(name):
    world = adapters._maker(name, {})()
    for seed in range(3):
        world.reset(seed=seed)
        robot = world.unwrapped
        for _ in range(20):
            towards = 10 * (robot._goal - robot._hand())
            shown, reward, *_, info = world.step(np.append(np.clip(towards, -1, 1), 0).astype(np.float32))
        assert (reward, info["success"]) == (1, True)
        difference = np.abs(shown["observation"].astype(int) - shown["desired_goal"])
        assert difference.mean() < 3
    world.close()


@pytest.mark.peers
def test_commands_of_the_page():
    for words in (["envs", "gymnasium:FetchReach-v4"], ["train", "--env", "gymnasium:FetchReach-v4", "--dry-run"]):
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 0, done.output
    assert "recipe adapted" in done.output
