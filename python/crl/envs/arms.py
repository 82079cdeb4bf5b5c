"""A Panda arm over a table: reach, grasp, push, and carry from bin to bin."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from crl.envs import panda
from crl.envs.spec import EnvSpec, of_places
from crl.envs.task import Array, Start, Task

Place = tuple[float, float]

JOINTS = len(panda.LINKS)
# rad. The joints that an action turns, 1, 2, 4 and 6, and the targets that -1 and 1 are.
ACTED = [0, 1, 3, 5]
LOWEST = np.array([0.3491, 0.0, -3.0718, 2.3562])
HIGHEST = np.array([2.7925, 1.48353, -0.0698, 3.7525])
# rad, joint 7. Published is a target of 1.4487, but the servo's gain is half of what it needs, and turns the joint to
# half of that. There the fingers open along x, as the goals of arm_grasp ask; at 1.4487 they would be 38 degrees off.
PUBLISHED_WRIST = 1.4487
WRIST = 0.5 * PUBLISHED_WRIST
START_POSE = (1.571, 0.742, 0.0, -1.571, 0.0, 3.054)  # rad, joints 1 to 6
START_FINGER = 0.04  # m, each
FREE_HAND_START, FREE_HAND_STRIDE = (0.0, 0.6, 0.2), 0.2  # m

FINGERS = ("left_finger", "right_finger")
CUBE_START_HEIGHT = 0.07  # m: it falls onto the table
FORCE_SCALE = 0.1  # published, to bring up to 20 N to the size of the other entries
TIP_OFFSET, GRASP_OPENING = 0.0375, 0.075  # m; of each tip from the cube's middle, and between both
MIDDLE_TOLERANCE, OPENING_TOLERANCE = 0.05, 0.02  # m
# Of the fingers on the cube. Geoms say 10 in the publication too, but its contact pairs do not ask them and mean 1.
GRIP = {"friction": 10.0, "time": 0.01}
BLUE, RED = (0.2, 0.4, 0.8, 1.0), (0.8, 0.25, 0.2, 1.0)

POSE_WORDS = "joints (1.571, .742, 0, -1.571, 0, 3.054, .724) rad, at rest"
LINK_WORDS = "position and velocity of the origin of link 7"


class Arm(Task):
    """An arm on a table; what its tasks share.

    Actions are targets of the joint servos, absolute: entries 0 to 3 of joints 1, 2, 4 and 6, over part of their
    range; entry 4, where there are fingers, closes them if positive and else opens them.

    Args:
        spec: of the task; physics steps are set here.
        fidelity: `published` takes 25 physics steps of .002 s per control step, 6 iterations of the solver at most, and
            pyramidal friction cones. `fast` takes 10 of .005 s, about half the cost, with elliptic cones and stiffer
            contacts of the fingers, which hold a cube better: it creeps by .2 mm/s and not by 4.
        variant: `mended` matches the servos' gains with their stiffness. `published` restores gains at which joint 4
            stops at .571 of its target, 6 and 7 at half of theirs; half of the goals of `arm_reach` cannot be reached
            then. It also restores the entry "gripper force" of pushing and binpicking that has nothing of the fingers.
    """

    derived: tuple[str, ...] = ("sensordata",)
    has_cube = True

    def __init__(self, spec: EnvSpec, fidelity: str, variant: str) -> None:
        if fidelity not in ("fast", "published"):
            raise ValueError(f"fidelity must be 'fast' or 'published', got {fidelity!r}")
        if variant not in ("mended", "published"):
            raise ValueError(f"variant must be 'mended' or 'published', got {variant!r}")
        self.spec, self.fidelity, self.published = spec, fidelity, variant == "published"
        self.wrist = PUBLISHED_WRIST if self.published else WRIST
        self.start_pose: tuple[float, ...] = (*START_POSE, self.wrist)

    def build_model(self) -> Any:
        from crl.envs.physics import mujoco

        spec = mujoco.MjSpec()
        spec.compiler.degree = False
        spec.option.timestep = self.spec.dt / self.spec.action_repeat
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        if self.fidelity == "published":
            spec.option.iterations, spec.option.ls_iterations = 6, 12
        else:
            spec.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_ISLAND  # 5 % cheaper
            spec.option.cone, spec.option.impratio = mujoco.mjtCone.mjCONE_ELLIPTIC, 10.0
        panda.add_table(spec)
        hand = self.add_robot(spec)
        panda.add_contacts(spec, ["hand"], ["table"])
        if self.has_cube:
            panda.add_fingers(spec, hand)
            panda.add_cube(spec)
            panda.add_contacts(spec, ["cube"], ["table", "hand"])
            panda.add_contacts(spec, FINGERS, ["table"])
            panda.add_contacts(spec, FINGERS, ["cube"], **GRIP if self.fidelity == "fast" else {})
            panda.add_contacts(spec, FINGERS[:1], FINGERS[1:])
        self.furnish(spec)
        return spec.compile()

    def add_robot(self, spec: Any) -> Any:
        """Add the robot to an `MjSpec`, but for its fingers; returns the body of its hand."""
        return panda.add_arm(spec, published_gains=self.published)

    @abstractmethod
    def furnish(self, spec: Any) -> None:
        """Add to an `MjSpec` the task's own surroundings and sensors."""

    def control(self, action: Array, batch: Any) -> Array:
        control = np.zeros((len(action), JOINTS + 2 * self.has_cube))
        control[:, ACTED] = LOWEST + 0.5 * (action[:, :4] + 1.0) * (HIGHEST - LOWEST)
        control[:, JOINTS - 1] = self.wrist
        control[:, JOINTS:] = _finger_targets(action[:, 4:])
        return control


class ArmReach(Arm):
    """Bring the origin of the last link to a point above the table."""

    has_cube = False

    def __init__(self, *, episode_length: int = 1000, fidelity: str = "fast", variant: str = "mended") -> None:
        spec = EnvSpec(
            name="arm_reach",
            observation_dim=13,
            action_dim=4,
            goal_dim=3,
            goal_indices=(7, 8, 9),
            episode_length=episode_length,
            success_threshold=0.1,
            action_repeat=_physics_steps(fidelity),
            dt=0.05,
            description="Panda arm, last link to a point above the table",
            observation=f"0:7 joint angles; 7:13 {LINK_WORDS}",
            start=POSE_WORDS,
            goal="position of the origin of link 7; (0, .5, .3) m + U(±.2) on each: one may lie where the arm starts",
            source="JaxGCRL envs/manipulation/arm_reach.py",
        )
        super().__init__(spec, fidelity, variant)

    def furnish(self, spec: Any) -> None:
        panda.add_region(spec, "below_goals", (0.0, 0.5), 0.2, BLUE, walls=False)

    def start(self, rng: np.random.Generator, count: int) -> Start:
        goal = np.array([0.0, 0.5, 0.3]) + rng.uniform(-0.2, 0.2, (count, 3))
        return Start(np.tile(self.start_pose, (count, 1)), np.zeros((count, JOINTS)), goal)

    def observe(self, batch: Any) -> Array:
        observation: Array = np.concatenate((batch.qpos, batch.sensordata), axis=1)
        return observation


class Scene(NamedTuple):
    """Where a cube starts and where it is to go: squares on the table, m."""

    start: Place
    start_spread: float
    goal: Place
    goal_spread: float
    regions: tuple[Place, Place]  # centres of the coloured squares
    region_half: float
    walls: bool


SCENES = {
    "arm_push_easy": Scene((-0.1, 0.6), 0.1, (0.1, 0.6), 0.1, ((-0.1, 0.6), (0.1, 0.6)), 0.1, walls=False),
    "arm_push_hard": Scene((-0.25, 0.65), 0.25, (0.25, 0.65), 0.25, ((-0.25, 0.65), (0.25, 0.65)), 0.25, walls=False),
    "arm_binpick_easy": Scene((-0.15, 0.6), 0.07, (0.17, 0.6), 0.005, ((-0.17, 0.6), (0.17, 0.6)), 0.14, walls=True),
    "arm_binpick_hard": Scene((-0.3, 0.6), 0.15, (0.3, 0.6), 0.15, ((-0.3, 0.6), (0.3, 0.6)), 0.19, walls=True),
}


class ArmCube(Arm):
    """Bring a cube to a place on the table: push it there, or lift it out of one bin into another.

    Args:
        name: a key of `SCENES`.
    """

    def __init__(
        self, name: str, *, episode_length: int = 1000, fidelity: str = "fast", variant: str = "mended"
    ) -> None:
        self.scene = scene = SCENES[name]
        force = "servos' mean force, N/10"
        spec = EnvSpec(
            name=name,
            observation_dim=18,
            action_dim=5,
            goal_dim=3,
            goal_indices=(0, 1, 2),
            episode_length=episode_length,
            success_threshold=0.1,
            action_repeat=_physics_steps(fidelity),
            dt=0.05,
            description=f"Panda arm, cube {'from bin to bin' if scene.walls else 'pushed to a place on the table'}",
            observation=f"0:3 position of the cube; 3:10 joint angles; 10:16 {LINK_WORDS}; 16 distance between the "
            f"fingers; 17 their {force}",
            start=f"{POSE_WORDS}, fingers half open; cube at {_words(scene.start, scene.start_spread)}, .04 m above "
            "the table",
            goal=f"position of the cube; {_words(scene.goal, scene.goal_spread)}, z .03 m"
            + ("" if scene.walls else ": one may lie where the cube starts"),
            source=f"JaxGCRL envs/manipulation/{name}.py",
        )
        super().__init__(spec, fidelity, variant)

    def furnish(self, spec: Any) -> None:
        for name, place, colour in zip(("start", "goal"), self.scene.regions, (BLUE, RED), strict=True):
            walls = panda.add_region(spec, name, place, self.scene.region_half, colour, walls=self.scene.walls)
            panda.add_contacts(spec, ["cube", "hand", *FINGERS], walls)
        if self.scene.walls:
            spec.option.impratio = 10.0  # published for these only

    def start(self, rng: np.random.Generator, count: int) -> Start:
        scene = self.scene
        qpos = _start_with_cube(rng, count, self.start_pose, scene.start, scene.start_spread)
        goal = np.full((count, 3), panda.CUBE_HALF)
        goal[:, :2] = scene.goal + rng.uniform(-scene.goal_spread, scene.goal_spread, (count, 2))
        return Start(qpos, np.zeros((count, qpos.shape[1] - 1)), goal)

    def observe(self, batch: Any) -> Array:
        qpos = batch.qpos
        parts = (qpos[:, 9:12], qpos[:, :7], batch.sensordata, self._gripper(batch))
        return np.concatenate(parts, axis=1, dtype=np.float64)

    def _gripper(self, batch: Any) -> Array:
        """(num_envs, 2) distance between the fingers, and the entry that is to be their force."""
        force, joints = servo_force(batch), len(self.start_pose)
        # Published is the mean over all velocities but two: of the cube, of a goal marker, and of the robot.
        of_joints, of_fingers = force[:, :joints].sum(axis=1) / (6 + 6 + joints), force[:, joints:].mean(axis=1)
        entry = of_joints if self.published else of_fingers
        return np.stack((batch.qpos[:, joints : joints + 2].sum(axis=1), FORCE_SCALE * entry), axis=1)


class ArmBinpickEef(ArmCube):
    """Lift a cube out of one bin into another with a hand that flies: actions move it, they do not turn joints.

    Entries 0 to 2 of an action are targets of the hand, at most .2 m from where it is along x, y and z; entry 3 closes
    the fingers if positive and else opens them. Walls that nobody sees keep the cube within reach.
    """

    derived = ()

    def __init__(self, *, episode_length: int = 1000, fidelity: str = "fast", variant: str = "mended") -> None:
        super().__init__("arm_binpick_easy", episode_length=episode_length, fidelity=fidelity, variant=variant)
        self.start_pose = FREE_HAND_START
        self.spec = replace(
            self.spec,
            name="arm_binpick_easy_eef",
            observation_dim=11,
            action_dim=4,
            description="hand without an arm, cube from bin to bin",
            observation="0:3 position of the cube; 3:9 position and velocity of the hand; 9 distance between the "
            "fingers; 10 servos' mean force on them, N/10",
            start=self.spec.start.replace(POSE_WORDS, "hand at (0, .6, .2) m, at rest"),
            source="JaxGCRL envs/manipulation/arm_binpick_easy_EEF.py",
        )

    def add_robot(self, spec: Any) -> Any:
        return panda.add_free_hand(spec)

    def furnish(self, spec: Any) -> None:
        super().furnish(spec)
        panda.add_contacts(spec, ["cube"], panda.add_fence(spec))

    def control(self, action: Array, batch: Any) -> Array:
        hand = batch.qpos[:, :3] + FREE_HAND_STRIDE * action[:, :3]
        return np.concatenate((hand, np.tile(_finger_targets(action[:, 3:]), 2)), axis=1)

    def observe(self, batch: Any) -> Array:
        parts = (batch.qpos[:, 5:8], batch.qpos[:, :3], batch.qvel[:, :3], self._gripper(batch))
        return np.concatenate(parts, axis=1, dtype=np.float64)


class ArmGrasp(Arm):
    """Bring the tips of the fingers to both sides of a cube, and close them."""

    def __init__(self, *, episode_length: int = 1000, fidelity: str = "fast", variant: str = "mended") -> None:
        spec = EnvSpec(
            name="arm_grasp",
            observation_dim=24,
            action_dim=5,
            goal_dim=7,
            goal_indices=tuple(range(16, 23)),
            episode_length=episode_length,
            success_threshold=1.0,
            action_repeat=_physics_steps(fidelity),
            dt=0.05,
            description="Panda arm, fingers around a cube",
            observation=f"0:3 position of the cube; 3:10 joint angles; 10:16 {LINK_WORDS}; 16:19 tip of the left "
            "finger, 19:22 of the right one; 22 distance between the tips; 23 servos' mean force on the fingers, N/10",
            start=f"{POSE_WORDS}, fingers half open; cube at {_words((0.0, 0.6), 0.3)}, .04 m above the table",
            goal="left and right tip, and the distance between them; .0375 m beside the cube on either side along x "
            "and .075 m, following the cube",
            success="middle of the tips within .05 m of the cube's, and their distance within .02 m of the goal's",
            errors=of_grasp,
            source="JaxGCRL envs/manipulation/arm_grasp.py",
        )
        super().__init__(spec, fidelity, variant)

    def furnish(self, spec: Any) -> None:
        panda.add_region(spec, "start", (0.0, 0.6), 0.3, BLUE, walls=False)
        panda.add_tip_sensors(spec)

    def start(self, rng: np.random.Generator, count: int) -> Start:
        qpos = _start_with_cube(rng, count, self.start_pose, (0.0, 0.6), 0.3)
        return Start(qpos, np.zeros((count, 15)), _tips_around(qpos[:, 9:12], GRASP_OPENING))

    def observe(self, batch: Any) -> Array:
        qpos, tips = batch.qpos, batch.sensordata[:, 6:]
        opening = np.linalg.norm(tips[:, :3] - tips[:, 3:], axis=1, keepdims=True)
        force = servo_force(batch)[:, JOINTS:].mean(axis=1, keepdims=True)
        parts = (qpos[:, 9:12], qpos[:, :7], batch.sensordata, opening, FORCE_SCALE * force)
        return np.concatenate(parts, axis=1, dtype=np.float64)

    def desired_goal(self, observation: Array, goal: Array) -> Array:
        return _tips_around(observation[:, :3], goal[:, 6])

    def goal_markers(self, goal: Array) -> Array:
        middle = 0.5 * (goal[:, None, :3] + goal[:, None, 3:6])
        return np.concatenate((middle, np.full((len(goal), 1, 1), MIDDLE_TOLERANCE)), axis=2)


def of_grasp(difference: Any) -> tuple[Any, ...]:
    """Errors of the tips' middle and of their distance, each by what is tolerated: those of an `EnvSpec`."""
    (middle,) = of_places(0.5 * (difference[:, :3] + difference[:, 3:6]))
    return middle / MIDDLE_TOLERANCE, abs(difference[:, 6]) / OPENING_TOLERANCE


def servo_force(batch: Any) -> Array:
    """(num_envs, servos) what each servo exerts in this state: `actuator_force`, which the engine leaves behind."""
    model = batch.model
    gain, bias, limit = model.actuator_gainprm[:, 0], model.actuator_biasprm, model.actuator_forcerange
    force = gain * batch.ctrl + bias[:, 1] * batch.qpos[:, : model.nu] + bias[:, 2] * batch.qvel[:, : model.nu]
    limited: Array = np.where(model.actuator_forcelimited, np.clip(force, limit[:, 0], limit[:, 1]), force)
    return limited


def _start_with_cube(
    rng: np.random.Generator, count: int, pose: tuple[float, ...], place: Place, spread: float
) -> Array:
    """Positions (count, nq) of the robot, its two fingers, and a cube in a square."""
    first = [*pose, START_FINGER, START_FINGER, *place, CUBE_START_HEIGHT, 1.0, 0.0, 0.0, 0.0]
    qpos = np.tile(first, (count, 1))
    x = len(pose) + 2
    qpos[:, x : x + 2] += rng.uniform(-spread, spread, (count, 2))
    return qpos


def _finger_targets(entry: Array) -> Array:
    """m, of each finger, for the last entry of an action."""
    return np.where(entry > 0.0, 0.0, panda.FINGER_TRAVEL)


def _tips_around(cube: Array, opening: Array | float) -> Array:
    """Goals (count, 7) at these cubes."""
    goal = np.empty((len(cube), 7), dtype=cube.dtype)
    goal[:, :3] = goal[:, 3:6] = cube
    goal[:, 0] += TIP_OFFSET
    goal[:, 3] -= TIP_OFFSET
    goal[:, 6] = opening
    return goal


def _words(place: Place, spread: float) -> str:
    return f"({place[0]:g}, {place[1]:g}) m + U(±{spread:g}) on x and y"


def _physics_steps(fidelity: str) -> int:
    """Per control step of .05 s."""
    return 25 if fidelity == "published" else 10
