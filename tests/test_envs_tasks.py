"""The robots and mazes themselves, against MuJoCo's own loop and the published numbers."""

import mujoco
import numpy as np
import pytest
from scipy.stats import chisquare, kstest

import crl.envs as envs
from crl.envs.ant import FEET

ROBOTS = ("reacher", "ant_u_maze", "point_u_maze")


def observe_by_mujoco(name, model, data):
    """The published observation of one world, from a full forward pass."""
    if name != "reacher":
        return np.concatenate((data.qpos, data.qvel))
    mujoco.mj_forward(model, data)
    tip, velocity = model.body("fingertip").id, np.empty(6)
    mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_XBODY, tip, velocity, 0)
    return np.concatenate((np.cos(data.qpos), np.sin(data.qpos), data.xpos[tip], velocity[3:]))


@pytest.mark.parametrize("name", ROBOTS)
def test_physics_and_observation_equal_a_plain_mujoco_loop(name):
    env = envs.make(name, 3, seed=5, num_threads=2)
    env.reset()
    data = mujoco.MjData(env.model)
    data.qpos, data.qvel = env.batch.qpos[1], env.batch.qvel[1]
    rng = np.random.default_rng(0)
    for _ in range(15):
        actions = rng.uniform(-0.5, 0.5, env.action_space.shape)
        observation, _, terminated, _, _ = env.step(actions)
        assert not terminated.any()
        data.ctrl = actions[1]
        for _ in range(env.env_spec.action_repeat):
            mujoco.mj_step(env.model, data)
        np.testing.assert_array_equal(env.batch.qpos[1], data.qpos)
        np.testing.assert_array_equal(env.batch.qvel[1], data.qvel)
        np.testing.assert_allclose(
            observation["observation"][1], observe_by_mujoco(name, env.model, data), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("name", ROBOTS)
def test_an_episode_does_not_depend_on_the_one_before(name):
    worn, new = (envs.make(name, 4, seed=0) for _ in range(2))
    worn.reset()
    for _ in range(20):
        worn.step(np.ones(worn.action_space.shape))
    worn.reset(seed=3), new.reset(seed=3)
    for _ in range(5):
        action = np.full(new.action_space.shape, 0.3)
        np.testing.assert_array_equal(worn.step(action)[0]["observation"], new.step(action)[0]["observation"])


def test_ant_starts_as_published():
    env = envs.make("ant", 4000, seed=0, num_threads=1)
    start = env.reset()[0]["observation"].astype(float)
    around = np.array([0, 0, 0.55, 0, 1, 0, -1, 0, -1, 0, 1])
    noise = start[:, [0, 1, 2, *range(7, 15)]] - around
    assert np.abs(noise).max() <= 0.1 + 1e-6
    assert all(kstest(column, "uniform", (-0.1, 0.2)).pvalue > 1e-4 for column in noise.T)
    assert all(kstest(column, "norm", (0, 0.1)).pvalue > 1e-4 for column in start[:, 15:].T)
    np.testing.assert_allclose(np.linalg.norm(start[:, 3:7], axis=1), 1, atol=1e-6)
    assert start[:, 3].min() > 0.95


def test_ant_goals_lie_on_the_circle():
    for name in ("ant", "ant_random_start"):
        observation, _ = envs.make(name, 4000, seed=1, num_threads=1).reset()
        goal = observation["desired_goal"].astype(float)
        np.testing.assert_allclose(np.linalg.norm(goal, axis=1), 10, rtol=1e-6)
        angle = np.arctan2(goal[:, 1], goal[:, 0])
        assert kstest(angle, "uniform", (-np.pi, 2 * np.pi)).pvalue > 1e-4
        away = np.linalg.norm(observation["achieved_goal"] - goal, axis=1)
        assert np.abs(away - 10).max() < 0.15


def test_ant_random_start_surrounds_the_goal():
    observation, _ = envs.make("ant_random_start", 4000, seed=1, num_threads=1).reset()
    offset = (observation["achieved_goal"] - observation["desired_goal"]).astype(float)
    angle = np.arctan2(offset[:, 1], offset[:, 0])
    assert kstest(angle, "uniform", (-np.pi, 2 * np.pi)).pvalue > 1e-4


def test_ant_is_the_published_robot():
    model = envs.make("ant", 1).model
    assert model.body("torso").mass == pytest.approx(0.327, abs=1e-3)
    assert model.body_mass.sum() == pytest.approx(0.911, abs=1e-3)
    joints = [model.joint(int(j)).name for j in model.actuator_trnid[:, 0]]
    assert joints == ["hip_4", "ankle_4", "hip_1", "ankle_1", "hip_2", "ankle_2", "hip_3", "ankle_3"]
    assert [model.joint(j).name for j in range(1, 9)] == [f"{k}_{leg}" for leg in "1234" for k in ("hip", "ankle")]
    assert (model.actuator_gear[:, 0] == 150).all()


@pytest.mark.parametrize(("height", "ends"), [(0.19, True), (0.21, False), (0.99, False), (1.01, True)])
def test_ant_terminates_by_height(height, ends):
    env = envs.make("ant", 2, seed=0)
    assert env.task.terminated(np.full((2, 29), height)).tolist() == [ends, ends]
    env.reset()
    env.batch.qpos[0, 2] = 3.0 if ends else 0.6
    env.batch.qvel[0] = 0
    *_, terminated, truncated, info = env.step(np.zeros((2, 8)))
    assert terminated.tolist() == [ends, False]
    assert not truncated.any()
    assert not info["diverged"].any()


@pytest.mark.parametrize(("offset", "success"), [(0.0, True), (0.499, True), (0.501, False)])
def test_success_at_known_states(offset, success):
    env = envs.make("point_maze", 1, seed=0)
    env.reset(options={"goal": [4.0, 12.0]})
    env.batch.qpos[0] = [4.0, 12.0 + offset]
    for _ in range(2):  # no episode ends at its goal
        _, reward, terminated, truncated, info = env.step(np.zeros((1, 2)))
        assert info["distance"][0] == pytest.approx(offset, abs=1e-6)
        assert reward[0] == float(info["success"][0]) == success
        assert not terminated.any()
        assert not truncated.any()


def test_reacher_starts_and_goals_as_published():
    observation, _ = envs.make("reacher", 4000, seed=0, num_threads=1).reset()
    goal, state = observation["desired_goal"].astype(float), observation["observation"].astype(float)
    assert kstest(np.linalg.norm(goal[:, :2], axis=1), "uniform", (0, 0.2)).pvalue > 1e-4
    assert kstest(np.arctan2(goal[:, 1], goal[:, 0]), "uniform", (-np.pi, 2 * np.pi)).pvalue > 1e-4
    np.testing.assert_allclose(goal[:, 2], 0.01)
    angles = np.arctan2(state[:, 2:4], state[:, 0:2])
    assert kstest(angles.ravel(), "uniform", (-0.1, 0.2)).pvalue > 1e-4
    assert np.abs(state[:, 4:7] - [0.21, 0, 0.01]).max() < 0.05


@pytest.mark.parametrize("name", ["ant_u_maze", "point_big_maze", "ant_hardest_maze_eval"])
def test_maze_goals_are_uniform_over_goal_cells(name):
    env = envs.make(name, 6000, seed=2, num_threads=1)
    cells = env.task.maze.centres("G")
    goals = env.reset()[0]["desired_goal"]
    counts = [(goals == cell).all(axis=1).sum() for cell in cells]
    assert sum(counts) == 6000
    assert chisquare(counts).pvalue > 1e-4


def test_point_starts_around_its_cell_at_rest():
    start = envs.make("point_maze", 4000, seed=0, num_threads=1).reset()[0]["observation"].astype(float)
    assert not start[:, 2:].any()
    assert kstest((start[:, :2] - 4).ravel(), "uniform", (-1, 2)).pvalue > 1e-4


def test_goals_stay_uniform_over_later_episodes():
    env = envs.make("point_u_maze", 500, seed=3, episode_length=1)
    cells, goals = env.task.maze.centres("G"), []
    env.reset()
    for _ in range(12):
        env.step(np.zeros((500, 2)))
        goals.append(env.step(np.zeros((500, 2)))[0]["desired_goal"])
    counts = [(np.concatenate(goals) == cell).all(axis=1).sum() for cell in cells]
    assert chisquare(counts).pvalue > 1e-4


def test_walls_stop_the_point():
    env = envs.make("point_u_maze", 4, seed=0)
    env.reset()
    outwards = np.array([[-1, 0], [1, 0], [0, -1], [0, 1]], dtype=float)
    for _ in range(150):
        observation, *_ = env.step(outwards)
    place = observation["achieved_goal"]
    # Inner faces: x in [2, 6] around the start cell, y from 2 to the end of the row, at 14; the sphere's radius is .25.
    np.testing.assert_allclose(place[[0, 1], 0], [2.25, 5.75], atol=0.02)
    np.testing.assert_allclose(place[[2, 3], 1], [2.25, 13.75], atol=0.02)


@pytest.mark.parametrize("fidelity", ["fast", "gymnasium"])
def test_walls_stop_the_ant(fidelity):
    env = envs.make("ant_u_maze", 8, seed=0, fidelity=fidelity)
    env.reset()
    rng = np.random.default_rng(0)
    touched = 0
    for _ in range(40):
        env.batch.qvel[:, 0] = 3.0  # carried against the wall at x = 6
        observation, _, terminated, *_ = env.step(rng.uniform(-1, 1, (8, 8)))
        assert observation["achieved_goal"][:, 0].max() < 5.9
        touched += (observation["achieved_goal"][:, 0] > 5.2).sum()
        if terminated.any():
            env.reset()
    assert touched > 0


def test_contacts_are_those_documented():
    def touching(fidelity):
        model = envs.make("ant_u_maze", 1, fidelity=fidelity).model
        allowed = {}
        for kind in ("floor", "wall_0"):
            other = model.geom(kind)
            allowed[kind] = {
                model.geom(g).name
                for g in range(model.ngeom)
                if model.geom_bodyid[g]
                and (model.geom_contype[g] & other.conaffinity or other.contype & model.geom_conaffinity[g])
            }
        return allowed["floor"], allowed["wall_0"]

    assert touching("fast") == (set(FEET), {*FEET, "torso_geom"})
    floor, wall = touching("gymnasium")
    assert len(floor) == len(wall) == 13


def test_gymnasium_fidelity_is_gymnasiums_model():
    import gymnasium

    theirs = gymnasium.make("Ant-v5").unwrapped.model
    ours = envs.make("ant", 1, fidelity="gymnasium").model
    for field in ("body_mass", "geom_contype", "geom_conaffinity", "geom_solref", "dof_armature", "actuator_gear"):
        np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field), err_msg=field)
    assert ours.opt.integrator == theirs.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4
    assert ours.opt.timestep == theirs.opt.timestep
    assert envs.make("ant", 1).model.opt.integrator == mujoco.mjtIntegrator.mjINT_IMPLICITFAST


def test_a_hand_written_policy_crosses_the_u_maze():
    """The world is controllable: cell by cell along the corridor, a damped push reaches the far end in time."""
    env = envs.make("point_u_maze_eval", 8, seed=0)
    path = np.array([[4, 8], [4, 12], [8, 12], [12, 12], [12, 8], [12, 4]], dtype=float)
    observation, _ = env.reset(options={"goal": path[-1]})
    leg, reached = np.zeros(8, dtype=int), np.zeros(8, dtype=bool)
    steps = 0
    while not reached.all() and steps < env.env_spec.episode_length:
        place, velocity = np.split(observation["observation"], 2, axis=1)
        leg += (np.linalg.norm(place - path[leg], axis=1) < 1) & (leg < len(path) - 1)
        observation, *_, info = env.step(np.clip(path[leg] - place - 0.5 * velocity, -1, 1))
        reached |= info["success"]
        steps += 1
    assert reached.all()
    assert 100 < steps < 200
