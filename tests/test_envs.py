"""What every environment must hold: Gymnasium's contract, episodes, determinism, errors."""

import numpy as np
import pytest
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import RecordEpisodeStatistics

import crl.envs as envs

SAMPLE = (
    "reacher", "ant", "ant_random_start", "ant_u_maze", "point_u_maze", "pusher_hard", "ant_ball", "humanoid",
    "arm_push_easy",
)  # fmt: skip
MAY_START_AT_GOAL = ("reacher", "arm_reach", "arm_push_easy", "arm_push_hard")  # as published
WORLDS = 6


def random_actions(env, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, env.action_space.shape).astype(np.float32)


def play(env, steps, seed=0):
    """Observations, rewards, ends and info of `steps` random steps, stacked over time."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(steps):
        observation, reward, terminated, truncated, info = env.step(rng.uniform(-1, 1, env.action_space.shape))
        frames.append({**observation, **info, "reward": reward, "terminated": terminated, "truncated": truncated})
    return {key: np.stack([frame[key] for frame in frames]) for key in frames[0]}


def assert_same(left, right):
    for key in left:
        np.testing.assert_array_equal(left[key], right[key], err_msg=key)


@pytest.mark.parametrize("name", envs.names())
def test_every_environment_steps_within_its_spaces(name):
    env = envs.make(name, 2, seed=3, num_threads=1)
    spec = envs.spec(name)
    assert env.env_spec == spec
    assert spec.name == name
    observation, info = env.reset()
    assert observation in env.observation_space
    assert env.model.opt.timestep * spec.action_repeat == pytest.approx(spec.dt)
    assert env.single_action_space.shape == (spec.action_dim,)
    if name not in MAY_START_AT_GOAL:
        assert (info["distance"] > spec.success_threshold).all()
    for _ in range(3):
        observation, reward, terminated, truncated, info = env.step(random_actions(env))
        assert observation in env.observation_space
        achieved = slice(None) if spec.image else list(spec.goal_indices)
        np.testing.assert_array_equal(observation["achieved_goal"], observation["observation"][:, achieved])
        assert reward.dtype == np.float64
        assert terminated.dtype == truncated.dtype == info["success"].dtype == info["diverged"].dtype == np.bool_
        assert reward.shape == terminated.shape == truncated.shape == info["distance"].shape == (2,)
    env.close()


@pytest.mark.parametrize(
    ("name", "observation", "goal", "action", "indices", "threshold", "dt"),
    [
        ("reacher", 10, 3, 2, (4, 5, 6), 0.05, 0.02),
        ("ant", 29, 2, 8, (0, 1), 0.5, 0.05),
        ("ant_random_start", 29, 2, 8, (0, 1), 0.5, 0.05),
        ("ant_hardest_maze", 29, 2, 8, (0, 1), 0.5, 0.05),
        ("point_maze", 4, 2, 2, (0, 1), 0.5, 0.05),
        ("half_cheetah", 18, 1, 6, (0,), 0.5, 0.05),
        ("pusher_easy", 20, 3, 7, (10, 11, 12), 0.1, 0.05),
        ("pusher_hard", 20, 3, 7, (10, 11, 12), 0.1, 0.05),
        ("pusher2", 23, 6, 7, (10, 11, 12, 13, 14, 15), 0.1, 0.05),
        ("pusher_reacher", 17, 3, 7, (14, 15, 16), 0.1, 0.05),
        ("ant_ball", 31, 2, 8, (29, 30), 0.5, 0.05),
        ("ant_push", 31, 2, 8, (0, 1), 0.5, 0.05),
        ("ant_ball_maze", 31, 2, 8, (29, 30), 0.5, 0.05),
        ("humanoid", 268, 3, 17, (0, 1, 2), 0.5, 0.015),
        ("humanoid_big_maze_eval", 268, 3, 17, (0, 1, 2), 0.5, 0.015),
    ],
)
def test_published_sizes(name, observation, goal, action, indices, threshold, dt):
    spec = envs.spec(name)
    assert (spec.observation_dim, spec.goal_dim, spec.action_dim) == (observation, goal, action)
    assert (spec.goal_indices, spec.success_threshold, spec.dt) == (indices, threshold, dt)
    assert spec.episode_length == 1000


def test_spaces_are_gymnasiums():
    env = envs.make("point_maze", 3)
    assert env.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    assert set(env.single_observation_space) == {"observation", "achieved_goal", "desired_goal"}
    assert env.observation_space["observation"].shape == (3, 4)
    assert env.action_space.shape == (3, 2)
    assert env.single_action_space.low.tolist() == [-1, -1]
    assert {space.dtype for space in env.observation_space.values()} == {np.dtype("float32")}
    assert env.num_envs == 3


def test_a_gymnasium_wrapper_understands_our_episodes():
    env = RecordEpisodeStatistics(envs.make("point_maze", 4, episode_length=5))
    env.reset(seed=0)
    for step in range(1, 13):
        *_, info = env.step(env.action_space.sample())
        if step in (5, 11):  # 5 steps, 1 reset, 5 steps
            assert info["_episode"].all()
            assert (info["episode"]["l"] == 5).all()
        else:
            assert "episode" not in info


def test_an_episode_ends_and_the_next_begins_one_step_later():
    env = envs.make("point_maze", 4, episode_length=3, seed=1)
    first, _ = env.reset()
    push = np.ones((4, 2), dtype=np.float32)
    for step in (1, 2, 3):
        last, _, terminated, truncated, _ = env.step(push)
        assert (truncated == (step == 3)).all()
        assert not terminated.any()
    moved = last["observation"][:, :2] - first["observation"][:, :2]
    assert (moved > 0).all()  # the last observation is where the episode ended, not where the next begins
    np.testing.assert_array_equal(last["desired_goal"], first["desired_goal"])
    again, reward, terminated, truncated, info = env.step(push)
    assert not again["observation"][:, 2:].any()  # at rest: its action was ignored
    assert np.abs(again["observation"][:, :2] - 4).max() <= 1
    assert (again["observation"] != first["observation"]).any(axis=1).all()
    assert not (terminated | truncated | info["success"]).any()
    assert not reward.any()
    for step in (1, 2, 3):  # and the next episode is as long as the first
        after, _, _, truncated, _ = env.step(push)
        assert (after["observation"][:, 2:] > 0).all()
        assert (truncated == (step == 3)).all()


@pytest.mark.parametrize("name", SAMPLE)
def test_fresh_start_and_goal_at_every_episode(name):
    env = envs.make(name, 32, episode_length=1, seed=2)
    goals, starts = [], []
    observation, _ = env.reset()
    for _ in range(6):
        goals.append(observation["desired_goal"])
        starts.append(observation["observation"])
        env.step(random_actions(env))
        observation, *_ = env.step(random_actions(env))
    goals, starts = np.array(goals), np.array(starts)
    assert ((goals != goals[0]).any(axis=(0, 2))).mean() > 0.95  # nearly every world has seen another goal
    distinct = len(np.unique(starts.reshape(6 * 32, -1), axis=0))
    assert distinct == (1 if name == "humanoid" else 6 * 32)  # its start is always the same, as published


@pytest.mark.parametrize("name", SAMPLE)
def test_success_and_reward_are_functions_of_what_is_shown(name):
    env = envs.make(name, 32, seed=4)
    env.reset()
    frames = play(env, 40)
    distance = np.linalg.norm(frames["achieved_goal"] - frames["desired_goal"], axis=2)
    np.testing.assert_allclose(frames["distance"], distance, rtol=1e-5)
    ended = frames["terminated"] | frames["truncated"]
    first = np.vstack([np.zeros(32, dtype=bool), ended[:-1]])
    np.testing.assert_array_equal(frames["success"], (frames["distance"] < env.env_spec.success_threshold) & ~first)
    np.testing.assert_array_equal(frames["reward"], frames["success"].astype(float))


def test_returned_arrays_belong_to_the_caller():
    env = envs.make("ant_maze", 3, seed=0)
    shown, _ = env.reset()
    kept = {key: value.copy() for key, value in shown.items()}
    frames = [env.step(random_actions(env)) for _ in range(2)]
    assert_same(shown, kept)
    for observation, *_ in frames:
        for value in observation.values():
            value[...] = np.nan
    assert np.isfinite(env.step(random_actions(env))[0]["observation"]).all()


@pytest.mark.parametrize("name", SAMPLE)
def test_same_seed_same_bits_at_any_thread_count(name):
    runs = []
    for threads in (1, 2, 5):
        env = envs.make(name, WORLDS, seed=7, num_threads=threads, episode_length=9)
        start, _ = env.reset()
        runs.append({**play(env, 25), "start": start["observation"]})
    assert_same(runs[0], runs[1])
    assert_same(runs[0], runs[2])
    other = envs.make(name, WORLDS, seed=8, episode_length=9)
    assert (other.reset()[0]["desired_goal"] != start["desired_goal"]).any()


def test_reset_seed_restarts_and_no_seed_runs_on():
    env = envs.make("ant", WORLDS, seed=5)
    first, second, third = env.reset()[0], env.reset()[0], env.reset(seed=5)[0]
    assert_same(first, third)
    assert (first["desired_goal"] != second["desired_goal"]).any()


@pytest.mark.parametrize("name", SAMPLE)
def test_state_dict_continues_bit_for_bit(name):
    env = envs.make(name, WORLDS, seed=11, episode_length=12)
    env.reset()
    play(env, 12)  # every world waits for its reset
    state = env.state_dict()
    assert all(isinstance(value, np.ndarray) and value.dtype != object for value in state.values())
    expected = play(env, 30, seed=1)
    other = envs.make(name, WORLDS, seed=0, episode_length=12)
    other.load_state_dict(state)
    assert_same(expected, play(other, 30, seed=1))
    env.load_state_dict(state)  # and in place
    assert_same(expected, play(env, 30, seed=1))


def test_state_dict_of_another_environment_is_refused_whole():
    env = envs.make("ant_u_maze", 3)
    env.reset(seed=1)
    before = env.state_dict()
    with pytest.raises(ValueError, match="'ant_big_maze', not 'ant_u_maze'"):
        env.load_state_dict(envs.make("ant_big_maze", 3).state_dict())
    with pytest.raises(ValueError, match=r"state\['physics'\].*num_envs"):
        env.load_state_dict(envs.make("ant_u_maze", 4).state_dict())
    with pytest.raises(ValueError, match="expected the entries"):
        env.load_state_dict({"physics": before["physics"]})
    assert_same(before, env.state_dict())


def test_goal_option_commands_a_goal():
    env = envs.make("point_maze", 3, seed=0)
    observation, info = env.reset(options={"goal": [4.0, 12.0]})
    assert (observation["desired_goal"] == [4, 12]).all()
    np.testing.assert_allclose(info["distance"], 8, atol=1.5)
    before = env.state_dict()
    for goal in ([1.0, 2.0, 3.0], [1.0, np.nan]):
        with pytest.raises(ValueError, match=r"options\['goal'\].*\(2,\)"):
            env.reset(seed=1, options={"goal": goal})
    with pytest.raises(ValueError, match=r"the only key is 'goal', got \['start'\]"):
        env.reset(seed=1, options={"start": [0, 0]})
    assert_same(before, env.state_dict())


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.zeros((2, 8)), r"expected shape \(3, 8\).*got \(2, 8\)"),
        (np.zeros(8), r"got \(8,\)"),
        (np.full((3, 8), "a"), "expected numbers"),
        (np.where(np.arange(24).reshape(3, 8) == 13, np.nan, 0), "finite, got nan for world 1, entry 5"),
        (np.full((3, 8), np.inf), "finite, got inf for world 0, entry 0"),
    ],
)
def test_bad_actions_are_named_and_change_nothing(actions, message):
    env = envs.make("ant", 3)
    env.reset()
    before = env.state_dict()
    with pytest.raises(ValueError, match=message):
        env.step(actions)
    assert_same(before, env.state_dict())


def test_actions_are_clipped():
    hard, full = envs.make("point_maze", 2), envs.make("point_maze", 2)
    hard.reset(seed=0), full.reset(seed=0)
    assert_same(hard.step(np.full((2, 2), 9.0))[0], full.step(np.ones((2, 2)))[0])


def test_step_before_reset_is_an_error():
    with pytest.raises(ResetNeeded, match="reset"):
        envs.make("reacher", 1).step(np.zeros((1, 2)))


def test_a_closed_environment_says_so():
    env = envs.make("reacher", 1)
    env.reset()
    env.close()
    env.close()
    with pytest.raises(ClosedEnvironmentError, match="closed"):
        env.step(np.zeros((1, 2)))
    with pytest.raises(ClosedEnvironmentError, match="closed"):
        env.reset()


def test_integers_of_numpy_are_sizes():
    assert envs.make("reacher", np.int64(3), num_threads=np.int32(2)).reset()[0]["observation"].shape == (3, 10)


@pytest.mark.parametrize("size", [0, -1, 2.0, True, "4"])
def test_bad_sizes(size):
    with pytest.raises(ValueError, match="num_envs must be a positive integer"):
        envs.make("reacher", size)
    with pytest.raises(ValueError, match="num_threads must be a positive integer"):
        envs.make("reacher", 1, num_threads=size)


@pytest.mark.parametrize("damage", ["position", "velocity"])
def test_a_diverged_world_is_counted_ended_and_never_shown(damage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its log into the working directory
    env = envs.make("ant", 3, seed=0)
    env.reset()
    last_sound, *_ = env.step(random_actions(env))
    if damage == "position":
        env.batch.qpos[1, 2] = np.nan
    else:
        env.batch.qvel[1, 0] = 1e20
    observation, reward, terminated, truncated, info = env.step(random_actions(env))
    assert info["diverged"].tolist() == [False, True, False]
    assert (terminated[1], truncated[1], reward[1], env.diverged_total) == (True, False, 0, 1)
    np.testing.assert_array_equal(observation["observation"][1], last_sound["observation"][1])
    observation, _, terminated, _, info = env.step(random_actions(env))
    assert not info["diverged"].any()
    assert not terminated[1]
    assert (observation["desired_goal"][1] != last_sound["desired_goal"][1]).any()
    play(env, 5)
    assert env.diverged_total == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300, 1e11])
def test_a_state_broken_by_the_last_physics_step_is_not_shown(value, monkeypatch):
    """MuJoCo looks at a state only when it steps on from it."""
    env = envs.make("point_maze", 2, seed=0)
    last_sound, _ = env.reset()
    observe = env.task.observe

    def broken(batch):
        observation = observe(batch)
        observation[1, 3] = value
        return observation

    monkeypatch.setattr(env.task, "observe", broken)
    observation, _, terminated, _, info = env.step(np.ones((2, 2)))
    assert info["diverged"].tolist() == terminated.tolist() == [False, True]
    np.testing.assert_array_equal(observation["observation"][1], last_sound["observation"][1])
    assert (observation["observation"][0] != last_sound["observation"][0]).any()


def test_a_task_that_observes_otherwise_than_it_says(monkeypatch):
    env = envs.make("point_maze", 2)
    monkeypatch.setattr(env.task, "observe", lambda batch: batch.qpos)
    with pytest.raises(ValueError, match=r"observe\(\) must return \(2, 4\), as its spec says, got \(2, 2\)"):
        env.reset()
