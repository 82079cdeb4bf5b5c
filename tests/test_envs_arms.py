"""The arms: the robot, its servos, what is observed, and that every task can be solved."""

import mujoco
import numpy as np
import pytest
from scipy.optimize import least_squares
from scipy.spatial import cKDTree
from scipy.stats import kstest

import crl.envs as envs
from crl.envs.arms import ACTED, HIGHEST, LOWEST, SCENES, servo_force

NAMES = ("arm_reach", "arm_grasp", *SCENES, "arm_binpick_easy_eef")
UP = np.array([0.0, 0.0, 0.17])
IN_HAND = np.array([0.0, 0.0, 0.005])  # m, of the tips' middle above that of a cube that is held


class Kinematics:
    """Where an action brings the arm, and which action brings it to a place."""

    def __init__(self, env):
        self.model, self.data, self.task = env.model, mujoco.MjData(env.model), env.task

    def place(self, action):
        """The point to be moved: between the tips, or link 7's origin; and where the hand points."""
        self.data.qpos[ACTED] = LOWEST + 0.5 * (action + 1) * (HIGHEST - LOWEST)
        self.data.qpos[6] = self.task.wrist
        mujoco.mj_kinematics(self.model, self.data)
        tips = self.data.site_xpos.mean(axis=0) if self.task.has_cube else self.data.body("link7").xpos.copy()
        return tips, self.data.body("hand").xmat[[2, 5, 8]]

    def solve(self, place):
        """Four entries of an action: there, and if there are fingers pointing down as far as that allows."""
        weight = 0.05 if self.task.has_cube else 0.0

        def error(action):
            reached, pointing = self.place(action)
            return np.concatenate((reached - place, weight * (pointing - [0, 0, -1])))

        return least_squares(error, np.zeros(4), bounds=(-1, 1)).x


def drive(env, waypoints):
    """Play [(places (num_envs, 3), finger entry, steps)]; returns what the last step returned."""
    kinematics = Kinematics(env)
    for places, finger, steps in waypoints:
        action = np.array([kinematics.solve(place) for place in places])
        if env.task.has_cube:
            action = np.column_stack((action, np.full(len(action), finger)))
        for _ in range(steps):
            result = env.step(action)
    return result


def cubes(observation):
    place = observation["observation"][:, :3].astype(float)
    place[:, 2] = 0.03  # where they are when they have fallen
    return place


def pick_up(cube):
    return [(cube + UP, -1, 30), (cube + IN_HAND, -1, 25), (cube + IN_HAND, 1, 12), (cube + UP, 1, 25)]


@pytest.mark.parametrize(
    ("name", "observation", "goal", "action", "indices", "threshold"),
    [
        ("arm_reach", 13, 3, 4, (7, 8, 9), 0.1),
        ("arm_grasp", 24, 7, 5, tuple(range(16, 23)), 1.0),
        *((name, 18, 3, 5, (0, 1, 2), 0.1) for name in SCENES),
        ("arm_binpick_easy_eef", 11, 3, 4, (0, 1, 2), 0.1),
    ],
)
def test_published_sizes(name, observation, goal, action, indices, threshold):
    spec = envs.spec(name)
    assert (spec.observation_dim, spec.goal_dim, spec.action_dim) == (observation, goal, action)
    assert (spec.goal_indices, spec.success_threshold, spec.dt) == (indices, threshold, 0.05)
    assert (spec.episode_length, spec.terminates) == (1000, "never")
    assert envs.spec(name, fidelity="published").action_repeat == 25


@pytest.mark.parametrize("option", ["fidelity", "variant"])
def test_options_are_checked(option):
    with pytest.raises(ValueError, match=f"{option} must be '.*' or 'published', got 'gymnasium'"):
        envs.spec("arm_grasp", **{option: "gymnasium"})


def test_the_robot_is_the_published_one():
    model = envs.make("arm_push_easy", 1).model
    masses = [4.971, 0.647, 3.229, 3.588, 1.226, 1.667, 0.736, 0.871, 0.015, 0.015, 0.216]
    np.testing.assert_allclose(model.body_mass[2:], masses, atol=5e-4)
    ranges = np.tile([-2.8973, 2.8973], (7, 1))
    ranges[[1, 3, 5]] = [-1.7628, 1.7628], [-3.0718, -0.0698], [-0.0175, 3.7525]
    np.testing.assert_allclose(model.jnt_range[:9], [*ranges, [0, 0.05], [0, 0.05]])
    assert model.jnt_limited[:9].all()
    np.testing.assert_array_equal(model.dof_armature[:9], 0.1)
    np.testing.assert_array_equal(model.dof_damping[:9], 5)
    np.testing.assert_array_equal(model.actuator_forcerange[:, 1], [87, 87, 87, 87, 12, 12, 12, 500, 500])
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)  # all angles 0: upright, the hand above .088 m of flange, pointing down
    np.testing.assert_allclose(data.body("link7").xpos, [0.088, 0, 0.333 + 0.316 + 0.384], atol=1e-9)
    np.testing.assert_allclose(data.body("hand").xpos - data.body("link7").xpos, [0, 0, -0.107], atol=1e-9)
    np.testing.assert_allclose(data.body("left_finger").xpos - data.body("hand").xpos, [0, 0, -0.0584], atol=1e-9)
    np.testing.assert_allclose(data.body("link4").xpos, [0.0825, 0, 0.649], atol=1e-9)


@pytest.mark.parametrize(("variant", "gain"), [("mended", [1, 1, 1, 1]), ("published", [1, 1, 4 / 7, 1 / 2])])
def test_where_servos_come_to_rest(variant, gain):
    env = envs.make("arm_reach", 3, variant=variant)
    env.reset()
    targets = np.array([[1.5, 0.6, -2.0, 3.0], [1.0, 0.2, -1.0, 2.6], [2.0, 1.0, -1.8, 3.5]])
    for _ in range(100):
        observation, *_ = env.step(2 * (targets - LOWEST) / (HIGHEST - LOWEST) - 1)
    joints = observation["observation"][:, :7]
    np.testing.assert_allclose(joints[:, ACTED], targets * gain, atol=0.015)  # and the weight of the arm
    np.testing.assert_allclose(joints[:, 6], 0.5 * 1.4487, atol=2e-3)  # in both: the published servo stops there
    np.testing.assert_allclose(joints[:, [2, 4]], 0, atol=0.01)


@pytest.mark.parametrize(("variant", "share"), [("mended", 0.99), ("published", 0.5)])
def test_share_of_reach_goals_that_the_arm_can_reach(variant, share):
    env = envs.make("arm_reach", 1, variant=variant)
    model, data, rng = env.model, mujoco.MjData(env.model), np.random.default_rng(0)
    targets = env.task.control(rng.uniform(-1, 1, (8000, 4)), None)
    poses = targets * model.actuator_gainprm[:, 0] / -model.actuator_biasprm[:, 1]  # where servos rest, gravity aside
    places = []
    for data.qpos[:] in poses:
        mujoco.mj_kinematics(model, data)
        places.append(data.body("link7").xpos.copy())
    away, _ = cKDTree(places).query(env.task.start(rng, 1000).goal)
    assert (away < 0.1).mean() == pytest.approx(share, abs=0.05)


def test_actions_are_targets_of_the_servos():
    control = envs.make("arm_grasp", 1).task.control(np.array([[-1.0, -1, -1, -1, 1], [1, 1, 1, 1, -1], [0] * 5]), None)
    low, high = [0.3491, 0, 0, -3.0718, 0, 2.3562, 0.72435], [2.7925, 1.48353, 0, -0.0698, 0, 3.7525, 0.72435]
    np.testing.assert_allclose(control[0], [*low, 0, 0])  # closed
    np.testing.assert_allclose(control[1], [*high, 0.05, 0.05])
    np.testing.assert_allclose(control[2], [*np.add(low, high) / 2, 0.05, 0.05])
    published = envs.make("arm_reach", 1, variant="published").task.control(np.zeros((1, 4)), None)
    assert published.shape == (1, 7)
    assert published[0, 6] == 1.4487


def test_actions_move_the_free_hand_from_where_it_is():
    env = envs.make("arm_binpick_easy_eef", 2, seed=0)
    env.reset()
    action = np.array([[1, -0.5, 0.25, 1], [0, 0, -1, -1.0]])
    for _ in range(3):
        place = env.batch.qpos[:, :3].copy()
        observation, *_ = env.step(action)
        np.testing.assert_allclose(env.batch.ctrl[:, :3], place + 0.2 * action[:, :3])
        np.testing.assert_array_equal(env.batch.ctrl[:, 3:], [[0, 0], [0.05, 0.05]])
    moved = observation["observation"][:, 3:6] - [0, 0.6, 0.2]
    np.testing.assert_array_equal(np.sign(moved.round(2)), np.sign(action[:, :3]))


def observe_by_mujoco(name, model, data):
    """The published observation of one world, from a full forward pass."""
    mujoco.mj_forward(model, data)
    velocity, link = np.empty(6), "hand" if name == "arm_binpick_easy_eef" else "link7"
    mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_XBODY, model.body(link).id, velocity, 0)
    link = [*data.body(link).xpos, *velocity[3:]]
    if name == "arm_reach":
        return [*data.qpos, *link]
    force = 0.1 * data.actuator_force[-2:].mean()
    left, right = data.site("left_tip").xpos, data.site("right_tip").xpos
    if name == "arm_grasp":
        hand = [*left, *right, np.linalg.norm(left - right), force]
    else:
        hand = [np.linalg.norm(data.body("left_finger").xpos - data.body("right_finger").xpos), force]
    joints = [] if name == "arm_binpick_easy_eef" else data.qpos[:7]
    return [*data.body("cube").xpos, *joints, *link, *hand]


@pytest.mark.parametrize("fidelity", ["fast", "published"])
@pytest.mark.parametrize("name", ["arm_reach", "arm_grasp", "arm_binpick_easy", "arm_binpick_easy_eef"])
def test_physics_and_observation_equal_a_plain_mujoco_loop(name, fidelity):
    env = envs.make(name, 3, seed=5, num_threads=2, fidelity=fidelity)
    observation, _ = env.reset()
    data = mujoco.MjData(env.model)
    data.qpos, data.qvel = env.batch.qpos[1], env.batch.qvel[1]
    rng = np.random.default_rng(0)
    for step in range(20):
        expected = observe_by_mujoco(name, env.model, data)
        np.testing.assert_allclose(observation["observation"][1], expected, rtol=1e-5, atol=1e-5)
        if step % 5 == 0:
            actions = rng.uniform(-1, 1, env.action_space.shape)
        observation, *_ = env.step(actions)
        data.ctrl = env.batch.ctrl[1]
        for _ in range(env.env_spec.action_repeat):
            mujoco.mj_step(env.model, data)
        np.testing.assert_allclose(env.batch.qpos[1], data.qpos, atol=1e-7)


def test_servo_forces_are_mujocos_also_where_they_saturate():
    env = envs.make("arm_grasp", 16, seed=0)
    env.reset()
    data, rng, saturated = mujoco.MjData(env.model), np.random.default_rng(0), 0
    for _ in range(5):
        env.step(rng.uniform(-1, 1, (16, 5)))
        forces = servo_force(env.batch)
        for world in range(16):
            data.qpos, data.qvel, data.ctrl = env.batch.qpos[world], env.batch.qvel[world], env.batch.ctrl[world]
            mujoco.mj_forward(env.model, data)
            np.testing.assert_allclose(forces[world], data.actuator_force, rtol=1e-9, atol=1e-9)
            saturated += (np.abs(data.actuator_force[:7]) >= env.model.actuator_forcerange[:7, 1]).sum()
    assert 20 < saturated < 540


def test_the_published_force_entry_is_that_of_the_arm():
    env = envs.make("arm_push_easy", 2, seed=0, variant="published")
    env.reset()
    observation, *_ = env.step(np.full((2, 5), 0.3))
    force = servo_force(env.batch)[:, :7].sum(axis=1) / (6 + 6 + 9 - 2)  # cube, goal marker, arm with its fingers
    np.testing.assert_allclose(observation["observation"][:, 17], 0.1 * force, rtol=1e-5)


def test_geoms_touch_only_by_pairs():
    def touching(name):
        model = envs.make(name, 1).model
        assert not model.geom_contype.any()
        assert not model.geom_conaffinity.any()
        return {
            frozenset((model.geom(a).name, model.geom(b).name))
            for a, b in zip(model.pair_geom1, model.pair_geom2, strict=True)
        }

    fingers = ["left_finger", "right_finger"]
    assert touching("arm_reach") == {frozenset(("hand", "table"))}
    pairs = {frozenset((a, b)) for a in ("table", "cube") for b in ("hand", *fingers)}
    pairs |= {frozenset(("table", "cube")), frozenset(fingers)}
    assert touching("arm_push_easy") == touching("arm_grasp") == pairs
    walls = {f"{bin}_{side}" for bin in ("start", "goal") for side in ("near", "far", "left", "right")}
    pairs |= {frozenset((a, b)) for a in ("cube", "hand", *fingers) for b in walls}
    assert touching("arm_binpick_hard") == touching("arm_binpick_easy") == pairs
    pairs |= {frozenset(("cube", f"fence_{side}")) for side in ("near", "far", "left", "right")}
    assert touching("arm_binpick_easy_eef") == pairs


@pytest.mark.parametrize("name", NAMES)
def test_starts_and_goals_as_published(name):
    task = envs.make(name, 1).task
    qpos, qvel, goal = task.start(np.random.default_rng(0), 4000)
    assert not qvel.any()
    if name == "arm_binpick_easy_eef":
        np.testing.assert_allclose(qpos[:, :3], np.tile([0, 0.6, 0.2], (4000, 1)))
        qpos = np.column_stack((np.tile([1.571, 0.742, 0, -1.571, 0, 3.054, 0], (4000, 1)), qpos[:, 3:]))
    np.testing.assert_allclose(qpos[:, :6], np.tile([1.571, 0.742, 0, -1.571, 0, 3.054], (4000, 1)))

    def is_uniform(values, middle, spread):
        return kstest(values, "uniform", (middle - spread, 2 * spread)).pvalue > 1e-4

    if name == "arm_reach":
        assert all(is_uniform(goal[:, i], (0, 0.5, 0.3)[i], 0.2) for i in range(3))
        return
    np.testing.assert_allclose(qpos[:, 7:9], 0.04)
    np.testing.assert_allclose(qpos[:, 11:], np.tile([0.07, 1, 0, 0, 0], (4000, 1)))
    start, start_spread, end, end_spread = {
        "arm_grasp": ((0, 0.6), 0.3, None, None),
        "arm_push_easy": ((-0.1, 0.6), 0.1, (0.1, 0.6), 0.1),
        "arm_push_hard": ((-0.25, 0.65), 0.25, (0.25, 0.65), 0.25),
        "arm_binpick_easy": ((-0.15, 0.6), 0.07, (0.17, 0.6), 0.005),
        "arm_binpick_easy_eef": ((-0.15, 0.6), 0.07, (0.17, 0.6), 0.005),
        "arm_binpick_hard": ((-0.3, 0.6), 0.15, (0.3, 0.6), 0.15),
    }[name]
    assert all(is_uniform(qpos[:, 9 + i], start[i], start_spread) for i in range(2))
    if name == "arm_grasp":
        np.testing.assert_allclose(goal[:, :3] - qpos[:, 9:12], np.tile([0.0375, 0, 0], (4000, 1)), atol=1e-12)
        np.testing.assert_allclose(goal[:, 3:6] - qpos[:, 9:12], np.tile([-0.0375, 0, 0], (4000, 1)), atol=1e-12)
        np.testing.assert_allclose(goal[:, 6], 0.075)
    else:
        assert all(is_uniform(goal[:, i], end[i], end_spread) for i in range(2))
        np.testing.assert_allclose(goal[:, 2], 0.03)


def test_grasp_follows_the_cube_and_judges_as_published():
    env = envs.make("arm_grasp", 16, seed=0)
    observation, _ = env.reset()
    cube, kinematics = cubes(observation), Kinematics(env)
    beside = cube + np.random.default_rng(0).uniform(-0.03, 0.03, (16, 3)) * [1, 1, 0] + IN_HAND
    above, there = (np.array([kinematics.solve(place) for place in places]) for places in (cube + UP, beside))
    seen = set()
    for entries, finger in [(above, -1)] * 25 + [(there, -1)] * 20 + [(there, 1)] * 10:
        observation, reward, _, _, info = env.step(np.column_stack((entries, np.full(16, finger))))
        state, goal = observation["observation"], observation["desired_goal"]
        for world in range(16):
            left, right = state[world, 16:19], state[world, 19:22]
            np.testing.assert_array_equal(goal[world, :3], state[world, :3] + np.float32([0.0375, 0, 0]))
            np.testing.assert_array_equal(goal[world, 3:6], state[world, :3] - np.float32([0.0375, 0, 0]))
            middle = np.linalg.norm((left + right) / 2 - state[world, :3])
            success = middle < 0.05 and abs(np.linalg.norm(left - right) - 0.075) < 0.02
            assert info["success"][world] == reward[world] == success
            seen.add((bool(middle < 0.05), bool(success)))
    assert seen == {(False, False), (True, False), (True, True)}


def test_reach_can_be_solved():
    env = envs.make("arm_reach", 12, seed=1)
    observation, info = env.reset()
    assert (info["distance"] > 0.1).any()
    *_, info = drive(env, [(observation["desired_goal"], 0, 40)])
    assert (info["distance"] < 0.05).all()


def test_grasp_can_be_solved_and_the_cube_lifted_swung_and_kept():
    env = envs.make("arm_grasp", 6, seed=3)
    observation, _ = env.reset()
    cube = cubes(observation)
    cube[:, 1] = np.clip(cube[:, 1], 0.4, 0.7)  # beyond, a cube cannot be lifted
    env.batch.qpos[:, 9:11] = cube[:, :2]
    *_, info = drive(env, pick_up(cube)[:3])
    assert info["success"].all()
    observation, *_ = drive(env, [(cube + UP, 1, 25), (cube * [0.5, 1, 1] + UP, 1, 60)])
    assert (observation["observation"][:, 2] > 0.1).all()
    assert (observation["observation"][:, 23] < -1).all()  # N/10: closing


@pytest.mark.parametrize("name", ["arm_push_easy", "arm_push_hard"])
def test_pushing_can_be_solved(name):
    env = envs.make(name, 6, seed=1)
    observation, info = env.reset(options={"goal": [0.1, 0.6, 0.03]} if name == "arm_push_hard" else None)
    cube, goal = cubes(observation), observation["desired_goal"].astype(float)
    if name == "arm_push_hard":  # of the large squares, a part to which the arm reaches in one push
        cube[:, :2] = env.batch.qpos[:, 9:11] = 0.4 * (cube[:, :2] - [-0.25, 0.65]) + [-0.15, 0.6]
    way = goal - cube
    ahead = way / np.linalg.norm(way, axis=1, keepdims=True)
    waypoints = [(cube - 0.1 * ahead + UP, 1, 30), (cube - 0.1 * ahead + IN_HAND, 1, 15)]
    waypoints += [(cube + part * way - 0.045 * ahead + IN_HAND, 1, 16) for part in np.linspace(0.2, 1, 5)]
    observation, *_, info = drive(env, waypoints)
    assert info["success"].sum() >= 5  # blind: a cube may slip off sideways
    assert observation["observation"][:, 2].max() < 0.045  # on the table all the way


@pytest.mark.parametrize("name", ["arm_binpick_easy", "arm_binpick_hard"])
def test_binpicking_can_be_solved(name):
    env = envs.make(name, 4, seed=1)
    commanded = {"goal": [0.22, 0.6, 0.03]} if name == "arm_binpick_hard" else None
    observation, _ = env.reset(options=commanded)
    cube, goal = cubes(observation), observation["desired_goal"].astype(float)
    if commanded:
        cube[:, :2] = env.batch.qpos[:, 9:11] = 0.4 * (cube[:, :2] - [-0.3, 0.6]) + [-0.22, 0.6]
    waypoints = pick_up(cube)
    waypoints += [(cube + part * (goal - cube) + UP, 1, 13) for part in np.linspace(0.3, 1, 3)]
    waypoints += [(goal + UP, 1, 20), (goal + 10 * IN_HAND, 1, 20), (goal + 10 * IN_HAND, -1, 15)]
    observation, *_, info = drive(env, waypoints)
    assert info["success"].all()
    assert observation["observation"][:, 2].max() < 0.035  # in the bin, let go


def test_binpicking_with_the_free_hand_can_be_solved():
    env = envs.make("arm_binpick_easy_eef", 8, seed=1)
    observation, _ = env.reset()
    wrist = np.array([0, 0, 0.0584 + 0.07])  # m, from the tips up to the hand's origin
    cube, goal = cubes(observation) + wrist, observation["desired_goal"] + wrist
    plan = [(cube + UP, -1, 30), (cube, -1, 30), (cube, 1, 15), (cube + UP, 1, 25), (goal + UP, 1, 40), (goal, -1, 40)]
    for place, finger, steps in plan:
        for _ in range(steps):
            to_go = (place - observation["observation"][:, 3:6]) / 0.2
            action = np.column_stack((to_go, np.full(8, finger)))
            observation, *_, info = env.step(action)
        if steps == 25:
            assert (observation["observation"][:, 2] > 0.1).sum() >= 7  # a finger may stand on the wall
    assert info["success"].sum() >= 7
