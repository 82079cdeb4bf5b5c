"""Perturbed worlds: against the laws of motion, models compiled as perturbed, and the worlds as they are."""

import json

import gymnasium
import mujoco
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import Quiet
from gymnasium.spaces import Box, Dict

import crl
from crl import envs, run
from crl.cli import main
from crl.envs import EnvSpec, Start, Task, adapters, perturbations, registry
from crl.envs.perturbations import Perturbation, PerturbedEnv
from crl.errors import ConfigError

G, FRICTION, SPEED, MASS, DT = 9.81, 0.4, 3.0, 0.5, 0.002
XML = """
<mujoco>
  <option timestep="{dt}" gravity="0 0 -{g}" cone="elliptic" impratio="100"/>
  <default><geom friction="{friction} {spin} {roll}" mass="{mass}"/></default>
  <worldbody>
    <geom type="plane" size="50 50 1" friction="{floor}" mass="0"/>
    <body pos="0 0 .1">
      <joint type="slide" axis="1 0 0"/><joint type="slide" axis="0 0 1"/>
      <geom type="box" size=".1 .1 .1"/>
    </body>
    <body pos="0 5 5"><joint name="fan" axis="0 0 1"/><geom type="box" size=".2 .1 .1"/></body>
  </worldbody>
  <actuator><motor joint="fan"/></actuator>
</mujoco>
"""


def model(friction=FRICTION, mass=MASS):
    rough = {"friction": friction, "spin": 0.1 * friction, "roll": 0.01 * friction}
    rough["floor"] = " ".join(str(value / 2) for value in rough.values())
    text = XML.format(dt=DT, g=G, mass=mass, **rough)
    return mujoco.MjModel.from_xml_string(text)


class BoxOnFloor(Task):
    """A box that begins to slide, beside a fan that an action turns; 2 s an episode. The floor is half as rough."""

    spec = EnvSpec(
        name="box_on_floor", observation_dim=6, action_dim=1, goal_dim=1, goal_indices=(0,), episode_length=50,
        success_threshold=0.1, action_repeat=20, dt=20 * DT,
    )  # fmt: skip

    def build_model(self):
        return model()

    def start(self, rng, count):
        qvel = np.tile([SPEED, 0.0, 0.0], (count, 1))
        return Start(np.zeros((count, 3)), qvel, rng.uniform(5, 6, (count, 1)))


@pytest.fixture
def box(monkeypatch):
    monkeypatch.setitem(registry._factories, "box_on_floor", BoxOnFloor)
    return "box_on_floor"


def after(env, steps=50):
    """The state after so many steps with action 1."""
    env.reset(seed=0)
    for _ in range(steps):
        observation = env.step(np.ones((env.num_envs, 1)))[0]["observation"][0]
    return observation


def perturbed(name, num_envs=1, seed=0, options=None, **changes):
    return perturbations.make(name, num_envs, Perturbation(**changes), seed=seed, num_threads=1, **(options or {}))


@pytest.mark.parametrize("factor", [0.75, 1, 2, 4])
def test_a_box_slides_the_distance_that_friction_allows(box, factor):
    distance = after(perturbed(box, friction=factor))[0]
    assert distance == pytest.approx(SPEED**2 / (2 * FRICTION * factor * G), rel=0.02)


@pytest.mark.parametrize("factor", [0.5, 1, 3])
def test_what_is_turned_turns_slower_the_more_its_mass(box, factor):
    inertia = MASS * factor * (0.4**2 + 0.2**2) / 12
    steps = 10
    assert after(perturbed(box, mass=factor), steps)[5] == pytest.approx(steps * 20 * DT / inertia, rel=1e-3)
    distance = after(perturbed(box, mass=factor))[0]  # friction knows no mass
    assert distance == pytest.approx(SPEED**2 / (2 * FRICTION * G), rel=0.02)


def test_a_model_is_what_the_compiler_would_have_made():
    ours, theirs = model(), model(friction=1.5 * FRICTION, mass=3 * MASS)
    perturbations.perturb(ours, Perturbation(friction=1.5, mass=3), "box")
    for field in dir(theirs):
        value = getattr(theirs, field)
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            np.testing.assert_allclose(getattr(ours, field), value, rtol=1e-9, atol=1e-12, err_msg=field)
    assert not np.allclose(ours.geom_friction, model().geom_friction)
    assert not np.allclose(ours.dof_invweight0, model().dof_invweight0)


def test_welds_that_an_environment_has_set_itself_stay():
    text = """<mujoco><worldbody>
      <body name="hand" mocap="true"/><body name="arm" pos="1 2 3"><freejoint/><geom size=".1"/></body>
    </worldbody><equality><weld body1="hand" body2="arm"/></equality></mujoco>"""
    ours = mujoco.MjModel.from_xml_string(text)
    ours.eq_data[0, 3:10] = [0, 0, 0, 1, 0, 0, 0]  # the arm is to be where the hand is, as Fetch's is
    before = ours.eq_data.copy()
    perturbations.perturb(ours, Perturbation(mass=2), "arm")
    np.testing.assert_array_equal(ours.eq_data, before)


def test_friction_of_pairs_and_no_other_model():
    ours = perturbed("arm_push_easy", friction=2).model
    plain = envs.make("arm_push_easy", 1, num_threads=1).model
    assert plain.npair
    np.testing.assert_array_equal(ours.pair_friction, 2 * plain.pair_friction)


@pytest.mark.parametrize("name", ["point_u_maze", "ant_u_maze", "humanoid", "ant_ball", "pusher_easy", "arm_push_easy"])
def test_starts_are_shifted_and_nothing_else(name):
    plain, ours = envs.make(name, 8, num_threads=1), perturbed(name, 8, start_shift=0.07)
    plain.reset(seed=5)
    ours.reset(seed=5)
    shift = ours.batch.qpos - plain.batch.qpos
    moved = np.flatnonzero(shift.any(axis=0))
    assert len(moved) == 2
    np.testing.assert_allclose(np.linalg.norm(shift, axis=1), 0.07, rtol=1e-6)
    assert len(np.unique(np.round(np.arctan2(*shift[:, moved].T), 3))) == 8
    np.testing.assert_array_equal(ours.batch.qvel, plain.batch.qvel)
    np.testing.assert_array_equal(ours.places[1], plain.places[1])
    achieved = ours.places[0] - plain.places[0]  # the ball, which the ant does not carry, stays
    np.testing.assert_allclose(np.linalg.norm(achieved, axis=1), 0.0 if name == "ant_ball" else 0.07, atol=1e-6)


def test_no_start_is_in_a_wall_or_outside():
    shift, radius = 3.0, 0.25
    plain, ours = envs.make("point_u_maze", 80, num_threads=1), perturbed("point_u_maze", 80, start_shift=shift)
    plain.reset(seed=0)
    ours.reset(seed=0)
    places, maze = ours.batch.qpos, ours.task._task.maze
    walls = np.argwhere(maze.grid == "#") * maze.cell
    away = np.maximum(np.abs(places[:, None] - walls[None]) - maze.cell / 2, 0)
    assert (np.linalg.norm(away, axis=-1).min(axis=1) > radius - 0.002).all()
    cells = np.rint(places / maze.cell).astype(int)
    assert (maze.grid[tuple(cells.T)] != "#").all()
    np.testing.assert_allclose(np.linalg.norm(places - plain.batch.qpos, axis=1), shift)


def test_every_world_of_random_mazes_has_walls_of_its_own():
    ours = perturbed("point_random_maze", 6, start_shift=1.0, mass=2.0)
    plain = envs.make("point_random_maze", 6, num_threads=1)
    ours.reset(seed=1)
    plain.reset(seed=1)
    np.testing.assert_allclose(np.linalg.norm(ours.batch.qpos - plain.batch.qpos, axis=1), 1.0)
    for world in range(6):
        np.testing.assert_array_equal(ours.batch.get_model(world).body_mass, 2 * plain.batch.get_model(world).body_mass)


def test_colours_are_shifted_by_so_much_in_a_direction_of_each_world():
    plain, ours = envs.make("point_u_maze_image", 3, num_threads=1), perturbed("point_u_maze_image", 3, colour=0.2)
    shown, goals = [], []
    for env in (plain, ours):
        env.reset(seed=0)
        observation = env.step(np.ones((3, 2)))[0]
        shown.append(observation["observation"].reshape(3, -1, 3).astype(float))
        goals.append(observation["desired_goal"].reshape(3, -1, 3).astype(float))
    grey = (shown[0] == 90).all(axis=-1).all(axis=0)  # walls, from where no shift of 51 leaves the range
    shift = (shown[1] - shown[0])[:, grey]
    np.testing.assert_allclose(np.linalg.norm(shift, axis=-1), 0.2 * 255, atol=1)
    assert (shift == shift[:, :1]).all()
    assert len(np.unique(shift[:, 0], axis=0)) == 3
    np.testing.assert_array_equal((goals[1] - goals[0])[:, grey], shift)
    np.testing.assert_array_equal(plain.batch.qpos, ours.batch.qpos)


class BoxGoals(gymnasium.Env):
    """The box as another project's environment; with `picture`, as a grey image."""

    def __init__(self, picture=False, plain=False):
        shown = Box(0, 255, (4, 4, 3), np.uint8) if picture else Box(-np.inf, np.inf, (1,))
        self.observation_space = Dict(observation=shown, achieved_goal=shown, desired_goal=shown)
        self.action_space, self.picture = Box(-1, 1, (1,)), picture
        if not plain:
            self.model = model()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if hasattr(self, "model"):
            self.data = mujoco.MjData(self.model)
            self.data.qvel[0] = SPEED
        return self._shown(), {}

    def step(self, action):
        mujoco.mj_step(self.model, self.data, 20)
        return self._shown(), 0.0, False, False, {"is_success": False, "distance": 1.0}

    def _shown(self):
        place = np.full((4, 4, 3), 128, np.uint8) if self.picture else np.array(self.data.qpos[:1], np.float32)
        return {"observation": place, "achieved_goal": place, "desired_goal": place}


gymnasium.register("BoxGoals-v0", BoxGoals, max_episode_steps=50)


def test_worlds_of_other_projects_have_other_friction_too():
    options = {"workers": 0}
    distances = [after(perturbed("gymnasium:BoxGoals-v0", friction=f, options=options))[0] for f in (1, 2)]
    assert distances[0] / distances[1] == pytest.approx(2, rel=0.02)
    assert after(envs.make("gymnasium:BoxGoals-v0", 1, workers=0))[0] == distances[0]


def test_images_of_other_projects_have_other_colours_too():
    env = PerturbedEnv(BoxGoals(picture=True), Perturbation(colour=0.3))
    first, _ = env.reset(seed=1)
    shift = first["observation"].astype(float) - 128
    np.testing.assert_allclose(np.linalg.norm(shift, axis=-1), 0.3 * 255, atol=1)
    np.testing.assert_array_equal(env.step(np.zeros(1))[0]["desired_goal"], first["observation"])
    np.testing.assert_array_equal(env.reset(seed=1)[0]["observation"], first["observation"])
    assert (env.reset(seed=2)[0]["observation"] != first["observation"]).any()


@pytest.mark.parametrize(
    ("env", "changes", "message"),
    [
        (BoxGoals(), {"start_shift": 0.1}, "draws its own starts"),
        (BoxGoals(), {"colour": 0.1}, "shows no images"),
        (BoxGoals(plain=True), {"mass": 2.0}, "no MuJoCo model that can be reached"),
    ],
)
def test_what_other_projects_cannot_is_refused(env, changes, message):
    with pytest.raises(ConfigError, match=f"^perturb: .*{message}"):
        PerturbedEnv(env, Perturbation(**changes))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("point_u_maze", {"friction": 2.0}, "no two things in point_u_maze touch with friction"),
        ("reacher", {"friction": 2.0}, "no two things in reacher touch with friction"),
        ("reacher", {"start_shift": 0.1}, "nothing in reacher moves along the floor"),
        ("half_cheetah", {"start_shift": 0.1}, "nothing in half_cheetah moves along the floor"),
        ("ant", {"colour": 0.1}, "ant shows no images"),
    ],
)
def test_what_a_world_does_not_have_is_refused(name, changes, message):
    with pytest.raises(ConfigError, match=f"^perturb: {message}"):
        perturbations.check(name, Perturbation(**changes))


@pytest.mark.parametrize(
    "name", ["ant", "ant_ball", "humanoid", "half_cheetah", "arm_grasp", "arm_push_easy", "ant_push"]
)
def test_robots_that_stand_on_something_have_friction(name):
    perturbations.check(name, Perturbation(friction=2.0))


def test_a_shift_out_of_the_maze_is_refused():
    with pytest.raises(ConfigError, match="start-shift 100 leads a start in point_u_maze into something"):
        perturbed("point_u_maze", start_shift=100.0).reset(seed=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fricton=2", "got 'fricton=2'. Did you mean 'friction'?"),
        ("color=0.3", "Did you mean 'colour'?"),
        ("start_shift=1", "Did you mean 'start-shift'?"),
        ("mass", "expected NAME=NUMBER,... of friction, mass, start-shift, colour; got 'mass'"),
        ("", "expected NAME=NUMBER"),
        ("mass=1,mass=2", "mass is there twice"),
        ("mass=-1", "mass must be a number above 0, got -1.0"),
        ("mass=0", "mass must be a number above 0, got 0.0"),
        ("friction=much", "friction must be a number above 0, got 'much'"),
        ("friction=inf", "friction must be a number above 0, got inf"),
        ("start-shift=-0.1", "start-shift must be a number at least 0"),
        ("colour=1.1", "colour must be a number from 0 to 1"),
        ("colour=nan", "colour must be a number from 0 to 1"),
    ],
)
def test_bad_text_is_refused(text, message):
    with pytest.raises(ConfigError) as refusal:
        Perturbation.parse(text)
    assert message in str(refusal.value)


def test_text_is_read():
    given = Perturbation.parse(" friction=1.5, mass=0.8,start-shift=0.2,colour=0.3 ")
    assert given == Perturbation(friction=1.5, mass=0.8, start_shift=0.2, colour=0.3)
    assert Perturbation.parse(str(given)) == given
    assert given.changes() == {"friction": 1.5, "mass": 0.8, "start-shift": 0.2, "colour": 0.3}


@pytest.fixture
def trained(tiny):
    return str(crl.train(tiny(total_env_steps=40), reporter=Quiet()).run_dir)


def test_rows_of_the_command(trained):
    def command(*options):
        result = CliRunner().invoke(main, ["eval", trained, *options])
        assert result.exit_code == 0, result.output
        return result.output

    plain = command("--json")
    told = json.loads(command("--json", "--perturb", "mass=1", "--perturb", "mass=3,start-shift=0.5"))
    rows = told.pop("perturbed")
    assert told == json.loads(plain)
    assert rows[0] == {"perturbation": {}, **told}  # through the perturbed world that is none
    assert rows[1]["perturbation"] == {"mass": 3.0, "start-shift": 0.5}
    assert rows[1]["final_distance"] != told["final_distance"]
    assert command("--json") == plain
    assert (
        run.evaluate_run(trained, perturbation=Perturbation(mass=3, start_shift=0.5)).final_distance
        == (rows[1]["final_distance"])
    )
    table = command("--perturb", "mass=3").splitlines()
    assert [line.split()[0] for line in table[:3]] == ["perturbation", "none", "mass=3"]
    assert f"{told['success_rate']:.3f} [" in table[1]


@pytest.mark.parametrize("text", ["friction=2", "colour=0.5", "weight=2"])
def test_the_command_refuses_in_one_line_before_it_evaluates(trained, text, monkeypatch):
    monkeypatch.setattr(run, "evaluate", lambda *a, **k: pytest.fail("evaluated"))
    result = CliRunner().invoke(main, ["eval", trained, "--perturb", "mass=2", "--perturb", text])
    assert result.exit_code == 2
    assert result.output.splitlines()[-1].startswith("Error: perturb: ")


@pytest.mark.peers
@pytest.mark.parametrize("name", ["gymnasium:FetchReach-v4", "metaworld:reach", "gymnasium:FetchReach-v4_image"])
def test_fetch_and_sawyer_are_perturbed(name):
    def mass(env):
        return next(perturbations._models(env)).body_mass.copy()

    env = perturbed(name, 1, mass=2.0, colour=0.2 * name.endswith("_image"), options={"workers": 0})
    (ours,), theirs = env.env.envs, adapters._maker(name, {})()
    np.testing.assert_array_equal(mass(ours), 2 * mass(theirs))
    env.reset(seed=0)
    env.step(np.zeros((1, env.env_spec.action_dim)))
    np.testing.assert_array_equal(mass(ours), 2 * mass(theirs))
    for each in (env, theirs):
        each.close()
