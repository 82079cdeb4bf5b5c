"""An arm that pushes objects on a table. Robot: gymnasium's pusher_v5.xml, without gravity."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crl.envs.spec import EnvSpec, of_places
from crl.envs.task import Array, Start, Task

BASE_Y = -0.6  # m, of the shoulder; its x is 0
SHOULDER, UPPER_ARM, FOREARM = 0.1, 0.4, 0.321  # m, links between the axes of pan, lift, elbow and wrist
COLOURS = (0.85, 0.35, 0.2, 1.0), (0.2, 0.45, 0.85, 1.0)  # of the first and the second object
OBJECT_HEIGHT = -0.275  # m, of the objects' middle; the table lies at -.325
SEPARATION = 0.17  # m, between an object and its goal when an episode starts


class Field(NamedTuple):
    """Where the objects of an environment start and are to go: for each, m from (x, y) to (x, y), uniform."""

    description: str
    objects: tuple[tuple[tuple[float, float], tuple[float, float]], ...]
    goals: tuple[tuple[tuple[float, float], tuple[float, float]], ...]


FIELDS = {
    "pusher_easy": Field(
        "arm pushes an object to a point nearer to itself",
        objects=(((0.25, -0.35), (0.65, -0.05)),),
        goals=(((0.25, -0.6), (0.65, -0.3)),),
    ),
    "pusher_hard": Field(
        "arm pushes an object to any point of a square metre",
        objects=(((0.25, -0.35), (0.65, -0.05)),),
        goals=(((-0.1, -0.7), (0.9, 0.3)),),
    ),
    "pusher2": Field(
        "arm pushes two objects, each to its own point",
        objects=(((0.25, -0.35), (0.45, -0.05)), ((0.45, -0.35), (0.65, -0.05))),
        goals=(((-0.15, -0.7), (0.375, 0.3)), ((0.375, -0.7), (0.9, 0.3))),
    ),
}


class Pusher(Task):
    """Push every object to within .1 m of its goal.

    Mended here, each a defect of the published tasks:

    - A goal lies at its object's height; published ones lie .048 m lower, so that the best possible distance is that.
    - No episode starts nearer than .17 m to its goal: starts and goals are drawn again until that holds, where the
      published rule moves the object in a way that does not ensure it.
    - All coordinates are drawn independently; both goals of the published `pusher2` share their y.
    - The state after the step is judged, not the one before.

    As published, objects pass through each other and over the table, the torques are 1 N m at most, and some goals of
    `pusher_hard` and `pusher2` lie where the arm does not reach.

    Args:
        name: a key of `FIELDS`.
        episode_length: steps.
    """

    def __init__(self, name: str = "pusher_easy", *, episode_length: int = 1000) -> None:
        field = FIELDS[name]
        self.objects, self.goals = np.array(field.objects), np.array(field.goals)
        count = len(self.objects)
        self._end = 10 + 3 * count  # of the objects in the observation
        several = count > 1
        self.spec = EnvSpec(
            name=name,
            observation_dim=self._end + 7,
            action_dim=7,
            goal_dim=3 * count,
            goal_indices=tuple(range(10, self._end)),
            episode_length=episode_length,
            success_threshold=0.1,
            action_repeat=5,
            dt=0.05,
            description=field.description,
            observation=f"0:7 joint angles of the arm, 7:10 its tip, 10:{self._end} "
            f"{'both objects' if several else 'the object'}, {self._end}:{self._end + 7} joint velocities",
            start="; ".join(("arm straight, speeds U(±.005) rad/s", _ranges("object", self.objects))),
            goal=f"x, y, z of {'both objects' if several else 'the object'}; {_ranges('goal', self.goals)}; at the "
            "height of the object and at least .17 m from its start",
            success="both objects within .1 m of their goals" if several else "",
            errors=of_objects,
            source=f"JaxGCRL envs/{'pusher2' if several else 'pusher'}.py",
        )

    def build_model(self) -> Any:
        from crl.envs import physics

        spec = physics.load_asset("pusher_v5.xml")
        for body in ("object", "goal"):
            spec.delete(spec.body(body))
        # As published, the wrist alone touches the table and the objects.
        physics.set_contacts(spec.body("r_wrist_roll_link").geoms, contype=0, conaffinity=1)
        table = spec.geom("table")
        physics.set_contacts([table], contype=1, conaffinity=0)
        table.rgba = [0.8, 0.76, 0.7, 1.0]
        for number in range(len(self.objects)):
            body = spec.worldbody.add_body(name=f"object_{number}", pos=[0.0, 0.0, OBJECT_HEIGHT])
            physics.add_slides(body, "yx", armature=0.04, damping=0.5)
            body.add_geom(
                name=f"object_{number}",
                type=physics.mujoco.mjtGeom.mjGEOM_CAPSULE,
                size=[0.05, 0.05, 0.0],
                mass=0.002,
                contype=1,
                conaffinity=0,
                rgba=COLOURS[number],
            )
        return spec.compile()

    def start(self, rng: np.random.Generator, count: int) -> Start:
        places, goals = self._draw(rng, count)
        qpos = np.zeros((count, 7 + 2 * len(self.objects)))
        qpos[:, 7:] = places[:, :, ::-1].reshape(count, -1)  # the slides are y, then x
        qvel = np.zeros_like(qpos)
        qvel[:, :7] = rng.uniform(-0.005, 0.005, (count, 7))
        return Start(qpos, qvel, _raised(goals))

    def _draw(self, rng: np.random.Generator, count: int) -> tuple[Array, Array]:
        """x, y of objects and goals, (count, objects, 2) each: uniform among pairs that are far enough apart."""
        places, goals = np.empty((2, count, len(self.objects), 2))
        again: NDArray[np.intp] = np.arange(count)
        while len(again):
            shape = (len(again), len(self.objects), 2)
            places[again] = rng.uniform(self.objects[:, 0], self.objects[:, 1], shape)
            goals[again] = rng.uniform(self.goals[:, 0], self.goals[:, 1], shape)
            apart = np.linalg.norm(places[again] - goals[again], axis=2)
            again = again[(apart < SEPARATION).any(axis=1)]
        return places, goals

    def observe(self, batch: Any) -> Array:
        angle, end = batch.qpos[:, :7], self._end
        observation = np.empty((len(angle), end + 7))
        observation[:, :7] = angle
        observation[:, 7:10] = tip(angle)
        observation[:, 10:end] = _raised(batch.qpos[:, 7:].reshape(len(angle), -1, 2)[:, :, ::-1])
        observation[:, end:] = batch.qvel[:, :7]
        return observation


class PusherReacher(Pusher):
    """Bring the tip of the pusher's arm to a point over the table.

    There is no object: the published one stands where the arm does not reach. Goals lie at the height that objects
    have in `pusher_easy`; published ones lie .048 m lower, closer to the table than the tip can come.

    Args:
        episode_length: steps.
    """

    def __init__(self, *, episode_length: int = 1000) -> None:
        self.objects = np.empty((0, 2, 2))
        self.goals = np.array([[[0.25, -0.35], [0.65, -0.05]]])
        self.spec = EnvSpec(
            name="pusher_reacher",
            observation_dim=17,
            action_dim=7,
            goal_dim=3,
            goal_indices=(14, 15, 16),
            episode_length=episode_length,
            success_threshold=0.1,
            action_repeat=5,
            dt=0.05,
            description="the pusher's arm, tip to a point over the table",
            observation="0:7 joint angles, 7:14 joint velocities, 14:17 tip",
            start="arm straight, speeds U(±.005) rad/s",
            goal=f"tip x, y, z; {_ranges('goal', self.goals)}, z {OBJECT_HEIGHT:g} m",
            source="JaxGCRL envs/pusher.py",
        )

    def _draw(self, rng: np.random.Generator, count: int) -> tuple[Array, Array]:
        low, high = self.goals[0]
        return np.empty((count, 0, 2)), rng.uniform(low, high, (count, 1, 2))

    def observe(self, batch: Any) -> Array:
        return np.concatenate((batch.qpos, batch.qvel, tip(batch.qpos)), axis=1)


def of_objects(difference: Any) -> tuple[Any, ...]:
    """How far each object is from its goal: the errors of an `EnvSpec`."""
    places = (difference[:, first : first + 3] for first in range(0, difference.shape[1], 3))
    return tuple(error for place in places for error in of_places(place))


def tip(angle: Array) -> Array:
    """Where the wrist is, (count, 3), for joint angles (count, 7).

    Forward kinematics in closed form: exact, current, and no extra pass of the engine.
    """
    pan, lift, roll, elbow = angle[:, :4].T
    # From the wrist back to the base: each joint turns what hangs on it, each link moves it along x.
    x, z = UPPER_ARM + FOREARM * np.cos(elbow), -FOREARM * np.sin(elbow)
    y, z = -z * np.sin(roll), z * np.cos(roll)
    x, z = SHOULDER + x * np.cos(lift) + z * np.sin(lift), z * np.cos(lift) - x * np.sin(lift)
    return np.stack((x * np.cos(pan) - y * np.sin(pan), BASE_Y + x * np.sin(pan) + y * np.cos(pan), z), axis=1)


def _raised(places: Array) -> Array:
    """x, y, z of each object in a row, (count, 3 * objects), for x, y (count, objects, 2)."""
    height = np.full((*places.shape[:2], 1), OBJECT_HEIGHT)
    return np.concatenate((places, height), axis=2).reshape(len(places), -1)


def _ranges(thing: str, boxes: Array) -> str:
    """In words, where the boxes (count, 2, 2) are."""
    words = []
    for number, ((left, near), (right, far)) in enumerate(boxes.tolist(), start=1):
        label = f"{thing} {number}" if len(boxes) > 1 else thing
        words.append(f"{label} x U({left:g}, {right:g}), y U({near:g}, {far:g}) m")
    return "; ".join(words)
