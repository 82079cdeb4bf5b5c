"""The ant and something to push: a ball, that is to reach the goal, or a box that bars the ant's way to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from crl.envs.ant import CONTACT_TIME, Ant, AntMaze
from crl.envs.task import Array, Start

COLOUR = [0.85, 0.35, 0.2, 1.0]  # of ball and box
BALL_RADIUS = 0.5  # m
CLEARANCE = 1.5  # m, between the middles of ant and ball: the ant's legs end .95 m from its own

BALL_LAYOUTS: dict[str, str] = {
    "u": """
        #####
        #RGB#
        ###G#
        #GGG#
        #####""",
    "big": """
        ########
        #R.##GG#
        #..#GGG#
        ##BGB###
        #GG#GGG#
        #G#GG#G#
        #GGG#GG#
        ########""",
}
"""Mazes to push a ball through, from `B` to `G`."""

# Walls of the pushing task: x, y of the middle and half the sizes of each block, m. With y upwards, 8 m a cell, the ant
# at the lower left `_` and the box at M:   AABCC / AA_CC / D_M_E / D__FF / GGGFF
BLOCKS = {
    "A": ((-4.0, 20.0), (8.0, 8.0)),
    "B": ((8.0, 24.0), (4.0, 4.0)),
    "C": ((20.0, 20.0), (8.0, 8.0)),
    "D": ((-8.0, 4.0), (4.0, 8.0)),
    "E": ((24.0, 8.0), (4.0, 4.0)),
    "F": ((20.0, -4.0), (8.0, 8.0)),
    "G": ((0.0, -8.0), (12.0, 4.0)),
}
BLOCK_HEIGHT = 4.0
BOX, BOX_HALF_SIZES, BOX_MASS = (8.0, 8.0, 2.0), (3.6, 3.6, 1.8), 0.0002  # m, m, kg
DENSITY, SOLIMP = 40.0, [0.995, 0.995, 0.01, 0.5, 2.0]


class _AntWithObject(Ant):
    """An ant and an object on slides, whose positions are the last of `qpos`."""

    def observe(self, batch: Any) -> Array:
        return np.concatenate((batch.qpos[:, :15], batch.qvel[:, :14], batch.qpos[:, 15:17]), axis=1)

    def _describe(self, thing: str, **words: Any) -> None:
        """Complete the ant's spec: two more entries of the observation, and these fields."""
        observation = f"{self.spec.observation}; 29:31 {thing} x, y"
        self.spec = replace(self.spec, observation_dim=31, observation=observation, **words)


class _AntWithBall(_AntWithObject):
    """The ball slides on x and y, nothing brakes it, and its middle stays at its radius above the floor.

    As published it weighs .576 kg, but its slides have an inertia of 1 kg each: 1.576 kg in motion.
    """

    def _robot(self) -> Any:
        from crl.envs import physics

        spec = super()._robot()
        fast = self.fidelity == "fast"
        body = spec.worldbody.add_body(name="ball", pos=[0.0, 0.0, BALL_RADIUS])
        physics.add_slides(body, "xy", armature=1.0)
        body.add_geom(
            name="ball",
            type=physics.mujoco.mjtGeom.mjGEOM_SPHERE,
            size=[BALL_RADIUS, 0.0, 0.0],
            mass=0.576,
            contype=physics.WALL if fast else 0,
            conaffinity=physics.WALL if fast else 1,
            rgba=COLOUR,
        )
        if fast:
            spec.geom("ball").solref = [CONTACT_TIME, 1.0]
        else:
            spec.geom("floor").contype = 0  # the ant touches it still, the ball does not
        return spec


class AntBall(_AntWithBall):
    """Push a ball to a point 5 m away in a free field.

    The ball starts at a fifth of the way to the goal, plus 1 m in a random direction. The published offset takes its x
    from one angle and its y from another; and it may put the ball into the ant. Here it is a vector, of a direction in
    which the ball clears the ant: at most 83° from that of the goal.

    Args:
        name: the environment's name.
        episode_length: steps.
        fidelity: as for `Ant`; in `fast`, feet and torso touch the ball.
    """

    GOAL_RADIUS = 5.0
    LARGEST_TURN = 2.0 * float(np.arccos(0.5 * CLEARANCE))  # between two unit vectors whose sum is so long

    def __init__(self, name: str = "ant_ball", *, episode_length: int = 1000, fidelity: str = "fast") -> None:
        super().__init__(name, episode_length=episode_length, fidelity=fidelity)
        self._describe(
            "ball",
            goal_indices=(29, 30),
            description="ant, ball to a point 5 m away in any direction",
            start=f"{self.spec.start}; the ball 1 m towards the goal and 1 m on, at most 83° off that direction",
            goal="ball x, y; on the circle of 5 m around the origin",
            source="JaxGCRL envs/ant_ball.py",
        )

    def start(self, rng: np.random.Generator, count: int) -> Start:
        ant = super().start(rng, count)
        towards = ant.goal / self.GOAL_RADIUS
        turn = rng.uniform(-self.LARGEST_TURN, self.LARGEST_TURN, count)
        cosine, sine = np.cos(turn), np.sin(turn)
        x, y = towards.T
        return _with_object(ant, towards + np.stack((cosine * x - sine * y, sine * x + cosine * y), axis=1))


class AntBallMaze(_AntWithBall, AntMaze):
    """Push a ball from the centre of a cell `B` of a maze to that of a goal cell, each drawn uniformly.

    Here the two draws are independent; published ones share their random number. The published environment names a
    layout that does not exist, and takes the ant's last joint velocity and the ball's x for the ball's x and y.

    Args:
        name: the environment's name.
        default: the layout: a key of `BALL_LAYOUTS`.
        layout: another one in its place, with at least one `B`: a text file, or the grid itself as text.
        episode_length: steps.
        fidelity: as for `AntBall`.
    """

    def __init__(
        self, name: str, default: str, *, layout: str = "", episode_length: int = 1000, fidelity: str = "fast"
    ) -> None:
        super().__init__(
            name, default, layout=layout or BALL_LAYOUTS[default], episode_length=episode_length, fidelity=fidelity
        )
        if not layout:
            self.maze = replace(self.maze, name=f"{default}_ball")
        if not len(self.maze.find("B")):
            raise ValueError(f"layout {self.maze.name}: at least one object cell 'B' is needed, for the ball.")
        self._describe(
            "ball",
            goal_indices=(29, 30),
            description=f"ant and ball, {self.maze}",
            start=f"{self.spec.start}; the ball at the centre of a ball cell",
            goal=f"ball x, y; {self.maze.goal_rule}",
            source="JaxGCRL envs/ant_ball_maze.py",
        )

    def start_at(self, rng: np.random.Generator, place: Array, goal: Array) -> Start:
        balls = self.maze.centres("B")
        return _with_object(super().start_at(rng, place, goal), balls[rng.integers(len(balls), size=len(goal))])


class AntPush(_AntWithObject):
    """Walk to a cell whose only entrance is blocked by a box, which has to be pushed into another cell first.

    The ant's density is 40, 8 times that of the other ants: 7.3 kg. The box weighs .2 g, but slides with friction.

    Args:
        episode_length: steps.
        fidelity: as for `Ant`; in `fast`, feet and torso touch walls and box.
    """

    from_above = True

    def __init__(self, *, episode_length: int = 1000, fidelity: str = "fast") -> None:
        super().__init__("ant_push", episode_length=episode_length, fidelity=fidelity)
        self._describe(
            "box",
            description="ant, 7.2 m box in the way to the goal",
            start="the origin; z .75 m, ankles bent by 1 rad; U(±.1) on every position, .1·N(0, 1) on every velocity; "
            "the box at 8, 8 m, U(±.1) on x, y and z, at rest",
            goal="torso x, y; (16, 8) or (8, 16), each as likely, plus U(0, 2) on x and y, m",
            source="JaxGCRL envs/ant_push.py",
        )

    def _robot(self) -> Any:
        from crl.envs import physics

        spec = super()._robot()
        fast = self.fidelity == "fast"
        body = spec.worldbody.add_body(name="box", pos=[0.0, 0.0, BOX[2]])
        physics.add_slides(body, "xyz", armature=0.0)
        box = body.add_geom(
            name="box",
            type=physics.mujoco.mjtGeom.mjGEOM_BOX,
            size=BOX_HALF_SIZES,
            contype=physics.FLOOR | physics.WALL if fast else 1,
            conaffinity=physics.WALL if fast else 1,
            rgba=COLOUR,
        )
        for name, (centre, half_sizes) in BLOCKS.items():
            bits = physics.wall_bits(self.fidelity)
            physics.add_wall(spec, f"wall_{name}", centre, half_sizes, BLOCK_HEIGHT, **bits)
        for geom in spec.geoms:
            geom.density, geom.solimp = DENSITY, SOLIMP
            if fast:
                geom.solref = [CONTACT_TIME, 1.0]
        box.mass = BOX_MASS
        return spec

    def start(self, rng: np.random.Generator, count: int) -> Start:
        ant = super().start(rng, count)
        ant.qpos[:, 2] += 0.2
        box = np.array([BOX[0], BOX[1], 0.0]) + rng.uniform(-0.1, 0.1, (count, 3))
        return _with_object(ant, box)

    def _goal(self, rng: np.random.Generator, count: int) -> Array:
        cells = np.array([[16.0, 8.0], [8.0, 16.0]])
        return cells[rng.integers(2, size=count)] + rng.uniform(0.0, 2.0, (count, 2))


def _with_object(ant: Start, place: Array) -> Start:
    """The same moment with an object at rest at `place`, one entry per slide."""
    return Start(np.hstack((ant.qpos, place)), np.hstack((ant.qvel, np.zeros_like(place))), ant.goal)
