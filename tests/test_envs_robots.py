"""Half-cheetah, pushers, ants with an object, humanoid: against MuJoCo's own loop and the published numbers."""

import mujoco
import numpy as np
import pytest
from scipy.stats import chisquare, kstest

import crl.envs as envs
from crl.envs.ant_objects import CLEARANCE
from crl.envs.pusher import tip

PUSHERS = ("pusher_easy", "pusher_hard", "pusher2")
MAZES = ("ant_ball_big_maze", "humanoid_u_maze")
NAMES = ("half_cheetah", *PUSHERS, "pusher_reacher", "ant_ball", "ant_push", "humanoid", *MAZES)
CARRIED = ("fast", "gymnasium")


def start_of(name, worlds=3000):
    """What many worlds show first, in float64."""
    shown, _ = envs.make(name, worlds, num_threads=1).reset()
    return {key: value.astype(float) for key, value in shown.items()}


def is_uniform(sample, low, high):
    assert low - 1e-6 <= sample.min() <= sample.max() <= high + 1e-6
    return kstest(sample.ravel(), "uniform", (low, high - low)).pvalue > 1e-4


def seen_by_mujoco(name, model, data):
    """The published observation of the state that `data` is in, from a forward pass of its own."""
    look = mujoco.MjData(model)
    look.qpos, look.qvel, look.ctrl = data.qpos, data.qvel, data.ctrl
    mujoco.mj_forward(model, look)
    if name == "half_cheetah":
        return np.concatenate((look.qpos, look.qvel))
    if name.startswith("ant"):
        thing = look.body("ball" if "ball" in name else "box").xpos
        return np.concatenate((look.qpos[:15], look.qvel[:14], thing[:2]))
    if name.startswith("humanoid"):
        blocks = ((look.qpos, 2), (look.qvel, 2), (look.cinert[1:], 10), (look.cvel[1:], 6), (look.qfrc_actuator, 2))
        return np.concatenate([np.append(block, np.zeros(target)) for block, target in blocks])
    wrist = look.body("tips_arm").xpos
    if name == "pusher_reacher":
        return np.concatenate((look.qpos, look.qvel, wrist))
    objects = [look.body(f"object_{number}").xpos for number in range((model.nq - 7) // 2)]
    return np.concatenate((look.qpos[:7], wrist, *objects, look.qvel[:7]))


@pytest.mark.parametrize("name", NAMES)
def test_physics_and_observation_equal_a_plain_mujoco_loop(name):
    env = envs.make(name, 3, seed=5, num_threads=2)
    shown, _ = env.reset()
    data = mujoco.MjData(env.model)
    data.qpos, data.qvel = env.batch.qpos[1], env.batch.qvel[1]
    rng = np.random.default_rng(0)
    for _ in range(12):
        expected = seen_by_mujoco(name, env.model, data)
        np.testing.assert_allclose(shown["observation"][1], expected, rtol=1e-5, atol=1e-6)
        actions = rng.uniform(-0.5, 0.5, env.action_space.shape)
        shown, _, terminated, _, _ = env.step(actions)
        assert not terminated.any()
        data.ctrl = env.task.control(actions, env.batch)[1]
        for _ in range(env.env_spec.action_repeat):
            mujoco.mj_step(env.model, data)
        np.testing.assert_array_equal(env.batch.qpos[1], data.qpos)
        np.testing.assert_array_equal(env.batch.qvel[1], data.qvel)


def test_derived_fields_are_current_in_every_world_at_every_step():
    """Also where some worlds have just been reset, and others not."""
    env = envs.make("humanoid", 5, seed=1, num_threads=2)
    shown, _ = env.reset()
    rng, resets, data = np.random.default_rng(0), 0, mujoco.MjData(env.model)
    for _ in range(40):
        for world in range(5):
            data.qpos, data.qvel, data.ctrl = (getattr(env.batch, field)[world] for field in ("qpos", "qvel", "ctrl"))
            expected = seen_by_mujoco("humanoid", env.model, data)
            np.testing.assert_allclose(shown["observation"][world], expected, rtol=1e-5, atol=1e-6)
        shown, _, terminated, _, _ = env.step(rng.uniform(-1, 1, (5, 17)))
        resets += terminated.any() and not terminated.all()
    assert resets > 2


@pytest.mark.parametrize("name", ["half_cheetah", "pusher2", "ant_push", "ant_ball_big_maze", "humanoid_u_maze"])
def test_an_episode_depends_on_nothing_that_was_before(name):
    worn, new = (envs.make(name, 3, seed=0) for _ in range(2))
    worn.reset()
    for _ in range(15):
        worn.step(np.ones(worn.action_space.shape))
    first, other = worn.reset(seed=3)[0], new.reset(seed=3)[0]
    for _ in range(5):
        np.testing.assert_array_equal(first["observation"], other["observation"])
        first, other = (env.step(np.full(env.action_space.shape, 0.3))[0] for env in (worn, new))


@pytest.mark.parametrize("name", NAMES)
def test_distance_equals_a_slow_computation(name):
    env = envs.make(name, 16, seed=3)
    shown, info = env.reset()
    rng = np.random.default_rng(0)
    for _ in range(4):
        for world in range(16):
            achieved = [shown["observation"][world][entry] for entry in env.env_spec.goal_indices]
            gaps = [float(a) - float(d) for a, d in zip(achieved, shown["desired_goal"][world], strict=True)]
            things = [gaps[3 * k : 3 * k + 3] for k in range(2)] if name == "pusher2" else [gaps]
            farthest = max(sum(gap * gap for gap in thing) ** 0.5 for thing in things)
            assert info["distance"][world] == pytest.approx(farthest, rel=1e-5)
            assert info["success"][world] == (farthest < env.env_spec.success_threshold)
        shown, *_, info = env.step(rng.uniform(-1, 1, env.action_space.shape))


def test_half_cheetah_as_published():
    shown = start_of("half_cheetah")
    state = shown["observation"]
    assert all(is_uniform(column, -0.1, 0.1) for column in state[:, :9].T)
    assert all(kstest(column, "norm", (0, 0.1)).pvalue > 1e-4 for column in state[:, 9:].T)
    assert (shown["desired_goal"] == 5).all()
    model = envs.make("half_cheetah", 1).model
    assert model.actuator_gear[:, 0].tolist() == [120, 90, 60, 120, 60, 30]
    order = [model.joint(j).name for j in range(model.njnt)]
    assert order == ["rootx", "rootz", "rooty", "bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot"]
    assert model.body_mass.sum() == pytest.approx(14, rel=1e-6)
    # Published masses are of a robot that shares its 14 kg with a target of .63.
    published = [5.97, 1.47, 1.52, 1.05, 1.37, 1.15, 0.84]
    np.testing.assert_allclose(model.body_mass[1:] * (14 - 0.63) / 14, published, atol=0.01)


@pytest.mark.parametrize("name", PUSHERS)
def test_pusher_starts_and_goals(name):
    shown = start_of(name)
    state, goal = shown["observation"], shown["desired_goal"]
    assert not state[:, :7].any()
    assert is_uniform(state[:, -7:], -0.005, 0.005)
    objects, goals = state[:, 10:-7].reshape(3000, -1, 3), goal.reshape(3000, -1, 3)
    apart = np.linalg.norm(objects - goals, axis=2)
    assert apart.min() >= 0.17 - 1e-6
    np.testing.assert_allclose(objects[..., 2], -0.275)
    np.testing.assert_allclose(goals[..., 2], -0.275)
    # From the published base (.45, -.05) and offsets. What is too near is drawn again: ranges, then, not the law.
    starts, ends = {
        "pusher_easy": ([(0.25, 0.65, -0.35, -0.05)], [(0.25, 0.65, -0.6, -0.3)]),
        "pusher_hard": ([(0.25, 0.65, -0.35, -0.05)], [(-0.1, 0.9, -0.7, 0.3)]),
        "pusher2": (
            [(0.25, 0.45, -0.35, -0.05), (0.45, 0.65, -0.35, -0.05)],
            [(-0.15, 0.375, -0.7, 0.3), (0.375, 0.9, -0.7, 0.3)],
        ),
    }[name]
    for places, boxes in ((objects, starts), (goals, ends)):
        for thing, (left, right, near, far) in enumerate(boxes):
            for axis, low, high in ((0, left, right), (1, near, far)):
                column = places[:, thing, axis]
                assert low - 1e-6 <= column.min() < low + 0.01 * (high - low)
                assert high - 0.01 * (high - low) < column.max() <= high + 1e-6
    if name == "pusher2":  # one key for both would make them equal
        assert abs(np.corrcoef(goals[:, 0, 1], goals[:, 1, 1])[0, 1]) < 0.1


def test_pusher_draws_again_until_the_law_holds():
    """Among pairs that are far enough apart, each is as likely: compare with pairs from a long list."""
    state = start_of("pusher_easy", 6000)
    rng = np.random.default_rng(1)
    objects = rng.uniform((0.25, -0.35), (0.65, -0.05), (20_000, 2))
    goals = rng.uniform((0.25, -0.6), (0.65, -0.3), (20_000, 2))
    apart = np.linalg.norm(objects - goals, axis=1)
    ours = np.linalg.norm(state["achieved_goal"] - state["desired_goal"], axis=1)
    assert kstest(ours, apart[apart >= 0.17]).pvalue > 1e-4
    assert 0.05 < (apart < 0.17).mean() < 0.5  # and there is something to draw again


def test_each_object_has_a_marker_at_its_goal():
    env = envs.make("pusher2", 2)
    goal = env.reset()[0]["desired_goal"]
    markers = env.task.goal_markers(goal)
    assert markers.shape == (2, 2, 4)
    np.testing.assert_array_equal(markers[1, 1, :3], goal[1, 3:])
    np.testing.assert_allclose(markers[..., 3], env.env_spec.success_threshold)


def test_pusher_reacher_goals():
    goal = start_of("pusher_reacher")["desired_goal"]
    assert is_uniform(goal[:, 0], 0.25, 0.65)
    assert is_uniform(goal[:, 1], -0.35, -0.05)
    np.testing.assert_allclose(goal[:, 2], -0.275)


def test_tip_in_closed_form():
    model = envs.make("pusher_reacher", 1).model
    data, rng = mujoco.MjData(model), np.random.default_rng(0)
    angles = rng.uniform(-3, 3, (50, 7))
    for angle, place in zip(angles, tip(angles), strict=True):
        data.qpos = angle
        mujoco.mj_kinematics(model, data)
        np.testing.assert_allclose(place, data.body("tips_arm").xpos, atol=1e-12)


def test_the_pusher_as_published():
    model = envs.make("pusher2", 1).model
    assert not model.opt.gravity.any()
    assert (model.actuator_gear[:, 0] == 1).all()
    assert [model.joint(j).name for j in range(7, 11)] == ["object_0_y", "object_0_x", "object_1_y", "object_1_x"]
    assert model.dof_damping[7:].tolist() == [0.5] * 4
    assert model.body("object_0").mass == pytest.approx(0.002)


@pytest.mark.parametrize("name", PUSHERS)
def test_the_arm_pushes_the_object(name):
    env = envs.make(name, 1)
    env.reset(seed=0)
    env.batch.qpos[0, :7] = [0, 0.75, 0, -0.8, 0, 0, 0]  # reaching down, the fork level
    x, y, z = tip(env.batch.qpos[:, :7])[0]
    assert -0.3 < z < -0.2
    env.batch.qpos[0, 7:9] = (y + 0.2, x)  # beside the fork, where panning takes it
    rest = env.batch.qpos[0, 9:].copy()
    for _ in range(20):
        shown, *_ = env.step(np.eye(7)[:1])
    assert shown["observation"][0, 11] > y + 0.3
    np.testing.assert_array_equal(env.batch.qpos[0, 9:], rest)  # the other object, if there is one


def test_ant_ball_starts_and_goals():
    shown = start_of("ant_ball")
    goal, ball, ant = shown["desired_goal"], shown["achieved_goal"], shown["observation"][:, :2]
    np.testing.assert_allclose(np.linalg.norm(goal, axis=1), 5, rtol=1e-6)
    assert is_uniform(np.arctan2(goal[:, 1], goal[:, 0]), -np.pi, np.pi)
    offset = ball - 0.2 * goal
    np.testing.assert_allclose(np.linalg.norm(offset, axis=1), 1, rtol=1e-5)
    turn = np.arctan2(offset[:, 1] * goal[:, 0] - offset[:, 0] * goal[:, 1], (offset * goal).sum(axis=1))
    widest = 2 * np.arccos(0.75)
    assert np.degrees(widest) == pytest.approx(83, abs=0.5)
    assert is_uniform(turn, -widest, widest)
    assert np.linalg.norm(ball, axis=1).min() >= CLEARANCE - 1e-6
    assert is_uniform(ant, -0.1, 0.1)


@pytest.mark.parametrize("fidelity", CARRIED)
def test_no_ball_starts_in_the_ant(fidelity):
    env = envs.make("ant_ball", 300, fidelity=fidelity, num_threads=1)
    env.reset()
    env.step(np.zeros((300, 8)))
    assert not env.batch.qvel[:, 14:].any()


@pytest.mark.parametrize("fidelity", CARRIED)
def test_the_ant_pushes_the_ball_and_nothing_brakes_it(fidelity):
    env = envs.make("ant_ball", 4, seed=0, fidelity=fidelity)
    env.reset()
    env.batch.qpos[:, 15:] = (1.0, 1.0)
    for _ in range(5):
        env.batch.qvel[:, :2] = 2
        _, _, terminated, *_ = env.step(np.zeros((4, 8)))
        assert not terminated.any()
    env.batch.qpos[:, 0] = -5  # the ant stays behind
    before, speed = env.batch.qpos[:, 15:].copy(), env.batch.qvel[:, 14:].copy()
    assert (speed.sum(axis=1) > 0.5).all()
    shown, *_ = env.step(np.zeros((4, 8)))
    np.testing.assert_allclose(shown["achieved_goal"], before + 0.05 * speed, rtol=1e-5)


def test_ant_ball_as_published():
    model = envs.make("ant_ball", 1).model
    assert model.body("ball").mass == pytest.approx(0.576)
    assert model.geom("ball").size[0] == 0.5
    assert not model.dof_damping[14:].any()


@pytest.mark.parametrize(("name", "balls", "goals"), [("ant_ball_maze", 1, 5), ("ant_ball_big_maze", 2, 20)])
def test_ant_ball_mazes_as_published(name, balls, goals):
    shown = start_of(name)
    pairs = {"achieved_goal": balls, "desired_goal": goals}
    draws = [np.unique(shown[key], axis=0, return_inverse=True, return_counts=True) for key in pairs]
    for (_, _, counts), expected in zip(draws, pairs.values(), strict=True):
        assert len(counts) == expected
        assert expected == 1 or chisquare(counts).pvalue > 1e-4
    together = np.unique(draws[0][1] * goals + draws[1][1], return_counts=True)[1]
    assert len(together) == balls * goals
    assert chisquare(together).pvalue > 1e-4  # the goal says nothing about where the ball is
    assert is_uniform(shown["observation"][:, :2] - 4, -0.1, 0.1)


def test_walls_stop_the_ball():
    for fidelity in CARRIED:
        env = envs.make("ant_ball_maze", 2, fidelity=fidelity)
        env.reset()
        env.batch.qvel[:, 14:] = [(0, 4), (4, -0.5)]  # from (4, 12): against a wall, and down the free corridor
        for _ in range(20):
            shown, *_ = env.step(np.zeros((2, 8)))
        assert 12.5 < shown["achieved_goal"][0, 1] < 13.6  # the wall begins at 14
        assert shown["achieved_goal"][1, 0] == pytest.approx(8, abs=1e-3)


def test_a_ball_needs_a_cell():
    with pytest.raises(ValueError, match="at least one object cell 'B' is needed"):
        envs.spec("ant_ball_maze", layout="####\n#RG#\n####")
    assert "2 goals" in envs.spec("ant_ball_maze", layout="######\n#RGBG#\n######").description


def test_ant_push_starts_and_goals():
    shown = start_of("ant_push")
    state, goal = shown["observation"], shown["desired_goal"]
    assert is_uniform(state[:, 29:] - 8, -0.1, 0.1)
    assert is_uniform(state[:, 2] - 0.75, -0.1, 0.1)
    right = goal[:, 0] > goal[:, 1]
    assert chisquare([right.sum(), (~right).sum()]).pvalue > 1e-4
    goal[~right] = goal[~right][:, ::-1]
    assert is_uniform(goal[:, 0], 16, 18)
    assert is_uniform(goal[:, 1], 8, 10)


def test_ant_push_as_published():
    model = envs.make("ant_push", 1).model
    assert model.body("torso").mass == pytest.approx(2.618, abs=1e-3)
    assert model.body("box").mass == pytest.approx(0.0002)
    assert model.body_mass.sum() == pytest.approx(7.29, abs=0.01)
    assert model.geom("box").size.tolist() == [3.6, 3.6, 1.8]
    assert model.geom("left_ankle_geom").solimp[:3].tolist() == [0.995, 0.995, 0.01]
    free = ["AABCC", "AA_CC", "D_M_E", "D__FF", "GGGFF"]  # rows from y = 24 down to -8, columns from x = -8 to 24
    for x in np.arange(-11.5, 28, 1.0):
        for y in np.arange(-11.5, 28, 1.0):
            covered = {
                model.geom(g).name[-1]
                for g in range(model.ngeom)
                if model.geom(g).name.startswith("wall_")
                and (np.abs(model.geom_pos[g, :2] - (x, y)) < model.geom_size[g, :2]).all()
            }
            cell = free[round((24 - y) / 8)][round((x + 8) / 8)]
            assert covered == ({cell} - {"_", "M"}), (x, y)


@pytest.mark.parametrize("fidelity", CARRIED)
def test_the_ant_pushes_the_box_and_walls_stop_both(fidelity):
    env = envs.make("ant_push", 3, seed=0, fidelity=fidelity)
    env.reset()
    env.batch.qpos[:, 15:] = [(8, 8, -0.2), (8, 15, -0.2), (8, 8, -0.2)]
    env.batch.qpos[[0, 2], :2] = [(3.5, 8), (0, -2.5)]  # in front of the box, and of the wall that begins at y = -4
    env.batch.qvel[1, 15] = 8  # here the box slides on its own, against block B
    for _ in range(15):
        env.batch.qvel[[0, 2], :2] = [(2, 0), (0, -2)]
        shown, _, terminated, *_ = env.step(np.zeros((3, 8)))
        assert not terminated.any()
    assert 8.5 < shown["observation"][0, 29] < 10
    assert 16.2 < shown["observation"][1, 30] < 16.5
    assert -3.8 < shown["achieved_goal"][2, 1] < -3


def test_humanoid_starts_and_goals():
    shown = start_of("humanoid")
    assert len(np.unique(shown["observation"], axis=0)) == 1
    np.testing.assert_allclose(shown["observation"][0, :7], [0, 0, 1.4, 1, 0, 0, 0])
    goal = shown["desired_goal"]
    assert is_uniform(np.linalg.norm(goal[:, :2], axis=1), 1, 5)
    assert is_uniform(np.arctan2(goal[:, 1], goal[:, 0]), -np.pi, np.pi)
    assert (goal[:, 2] == 1.25).all()


@pytest.mark.parametrize(("name", "goals"), [("humanoid_maze", 6), ("humanoid_big_maze", 25), ("humanoid_u3_maze", 10)])
def test_humanoid_mazes_as_published(name, goals):
    shown = start_of(name, 1000)
    goal, state = shown["desired_goal"], shown["observation"]
    assert len(np.unique(goal, axis=0)) == goals
    assert (goal[:, :2] % 2 == 0).all()  # cells are 2 m wide
    assert (goal[:, 2] == 1.25).all()
    around = np.zeros(24)
    around[:4] = 2, 2, 1.4, 1
    assert is_uniform(state[:, [0, 1, 2, *range(7, 24)]] - around[[0, 1, 2, *range(7, 24)]], -0.01, 0.01)
    assert is_uniform(state[:, 26:49], -0.01, 0.01)
    np.testing.assert_allclose(np.linalg.norm(state[:, 3:7], axis=1), 1, atol=1e-6)
    model = envs.make(name, 1).model
    assert 2 * model.geom("wall_0").size[2] == 1


@pytest.mark.parametrize("fidelity", CARRIED)
def test_walls_stop_the_humanoid(fidelity):
    env = envs.make("humanoid_u_maze", 2, fidelity=fidelity)
    env.reset()
    for _ in range(40):
        env.batch.qvel[:, :2] = [(2, 0), (0, 2)]  # against the wall that begins at x = 3, and down the free corridor
        shown, _, terminated, *_ = env.step(np.zeros((2, 17)))
        if terminated.any():
            break
    assert shown["achieved_goal"][0, 0] < 3
    assert shown["achieved_goal"][1, 1] > 2.7


def test_the_goal_is_nowhere_in_the_humanoids_state():
    shown = []
    for goal in ([1.0, 0, 1.25], [-3.0, 2, 1.25]):
        env = envs.make("humanoid", 2)
        env.reset(seed=0, options={"goal": goal})
        shown.append(env.step(np.full((2, 17), 0.3))[0]["observation"])
    np.testing.assert_array_equal(shown[0], shown[1])
    absent = [*range(24, 26), *range(49, 51), *range(161, 171), *range(237, 243), *range(266, 268)]
    assert not shown[0][:, absent].any()
    assert shown[0][:, [23, 26, 48, 51, 160, 171, 236, 249, 265]].all()


def test_the_humanoid_as_published():
    model = envs.make("humanoid", 1).model
    names = [model.joint(j).name for j in range(1, model.njnt)]
    sides = [f"{side}_{joint}" for side in ("right", "left") for joint in ("hip_x", "hip_z", "hip_y", "knee")]
    arms = [f"{side}_{joint}" for side in ("right", "left") for joint in ("shoulder1", "shoulder2", "elbow")]
    assert names == ["abdomen_z", "abdomen_y", "abdomen_x", *sides, *arms]
    driven = [model.joint(int(j)).name for j in model.actuator_trnid[:, 0]]
    assert driven == ["abdomen_y", "abdomen_z", "abdomen_x", *sides, *arms]
    assert model.actuator_gear[:, 0].tolist() == [100] * 3 + [100, 100, 300, 200] * 2 + [25] * 6
    assert (model.actuator_ctrlrange == [-0.4, 0.4]).all()
    masses = [8.907, 2.262, 6.616, 4.752, 2.756 + 1.767, 4.752, 2.756 + 1.767, 1.661, 1.230, 1.661, 1.230]
    np.testing.assert_allclose(model.body_mass[1:], masses, atol=2e-3)
    leg, arm = [(-25, 5), (-60, 35), (-110, 20), (-160, -2)], [(-90, 50)]
    ranges = [(-45, 45), (-75, 30), (-35, 35), *leg, *leg, *[(-85, 60)] * 2, *arm, *[(-60, 85)] * 2, *arm]
    np.testing.assert_allclose(np.degrees(model.jnt_range[1:]), ranges, atol=1e-9)
    assert model.dof_damping[6:].tolist() == [5.0] * 3 + [5, 5, 5, 1] * 2 + [1] * 6
    assert model.jnt_stiffness[1:].tolist() == [20, 10, 10, 10, 10, 20, 0, 10, 10, 20, 1, 1, 1, 0, 1, 1, 0]
    assert model.dof_armature[6:9].tolist() == [0.02] * 3
    assert np.unique(model.dof_armature[9:]).tolist() == [0.0028, 0.0051, 0.006, 0.0068, 0.008, 0.01]


def test_humanoid_actions_are_scaled_to_the_motors():
    env = envs.make("humanoid", 1)
    env.reset()
    shown, *_ = env.step(np.full((1, 17), 0.5))
    np.testing.assert_allclose(env.batch.ctrl, 0.2)
    assert shown["observation"][0, 249 + 5] == pytest.approx(0.2 * 300)  # right hip y
    env.step(np.full((1, 17), 9.0))
    np.testing.assert_allclose(env.batch.ctrl, 0.4)


@pytest.mark.parametrize(("height", "ends"), [(0.99, True), (1.01, False), (1.99, False), (2.01, True)])
def test_humanoid_terminates_by_height(height, ends):
    task = envs.make("humanoid", 1).task
    assert task.terminated(np.full((2, 268), height)).tolist() == [ends, ends]


def test_humanoid_contacts_are_those_documented():
    def can_touch(model, one, other):
        return bool(
            model.geom_contype[one] & model.geom_conaffinity[other]
            or model.geom_contype[other] & model.geom_conaffinity[one]
        )

    for fidelity, among_parts in (("fast", False), ("gymnasium", True)):
        model = envs.make("humanoid", 1, fidelity=fidelity).model
        floor = model.geom("floor").id
        parts = [g for g in range(model.ngeom) if g != floor]
        assert all(can_touch(model, floor, part) for part in parts)
        assert can_touch(model, parts[0], parts[-1]) == among_parts


def test_humanoid_at_gymnasiums_fidelity_is_gymnasiums_model():
    import gymnasium

    theirs = gymnasium.make("Humanoid-v5").unwrapped.model
    ours = envs.make("humanoid", 1, fidelity="gymnasium").model
    for field in ("geom_contype", "geom_conaffinity", "dof_armature", "dof_damping", "jnt_range", "actuator_gear"):
        np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field), err_msg=field)
    for field in ("integrator", "solver", "iterations", "timestep"):
        assert getattr(ours.opt, field) == getattr(theirs.opt, field)
    fast = envs.make("humanoid", 1).model.opt
    assert (fast.integrator, fast.solver) == (
        mujoco.mjtIntegrator.mjINT_IMPLICITFAST,
        mujoco.mjtSolver.mjSOL_NEWTON,
    )
