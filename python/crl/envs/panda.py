"""The Franka Emika Panda arm out of its published numbers, and what stands around it: capsules and boxes, no meshes.

Link frames and joint limits are Franka's, masses and inertias those identified by Gaz et al. (RA-L 2019); armature,
damping, servos, hand and fingers are as in JaxGCRL's arm environments.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import cos, pi, sin
from typing import Any, NamedTuple

Vector = tuple[float, float, float]
Colour = tuple[float, float, float, float]

UNSEEN = (1.0, 1.0, 1.0, 0.0)
WHITE, DARK, TABLE = (0.93, 0.94, 0.95, 1.0), (0.22, 0.23, 0.25, 1.0), (0.72, 0.66, 0.58, 1.0)


class Link(NamedTuple):
    """A link in its own frame, about whose z axis it turns on the link before it."""

    offset: Vector  # m, of this frame in the frame before
    quarter_turns: int  # of this frame about x of the frame before
    limits: tuple[float, float]  # rad
    stiffness: float  # Nm/rad, of the servo
    published_gain: float  # Nm/rad, by which the published servo multiplies its target
    strength: float  # Nm, of the servo
    mass: float  # kg
    centre: Vector  # m, of mass
    inertia: tuple[float, ...]  # kg m^2, about the centre: xx, yy, zz, xy, xz, yz
    looks: tuple[tuple[Vector, Vector, float], ...]  # capsules: both ends and the radius, m


LINKS = (
    Link(
        (0, 0, 0.333), 0, (-2.8973, 2.8973), 4500, 4500, 87,
        4.970684, (3.875e-3, 2.081e-3, -4.762e-2),
        (7.0337e-1, 7.0661e-1, 9.117e-3, -1.39e-4, 6.772e-3, 1.9169e-2),
        (((0, 0, -0.2), (0, 0, -0.06), 0.06),),
    ),
    Link(
        (0, 0, 0), -1, (-1.7628, 1.7628), 4500, 4500, 87,
        0.646926, (-3.141e-3, -2.872e-2, 3.495e-3),
        (7.962e-3, 2.811e-2, 2.5995e-2, -3.925e-3, 1.0254e-2, 7.04e-4),
        (((0, 0, -0.05), (0, 0, 0.05), 0.06), ((0, 0, 0), (0, -0.13, 0), 0.055)),
    ),
    Link(
        (0, -0.316, 0), 1, (-2.8973, 2.8973), 3500, 2000, 87,
        3.228604, (2.7518e-2, 3.9252e-2, -6.6502e-2),
        (3.7242e-2, 3.6155e-2, 1.083e-2, -4.761e-3, -1.1396e-2, -1.2805e-2),
        (((0, 0, -0.13), (0, 0, 0), 0.055), ((0, 0, 0), (0.0825, 0, 0), 0.05)),
    ),
    Link(
        (0.0825, 0, 0), 1, (-3.0718, -0.0698), 3500, 2000, 87,
        3.587895, (-5.317e-2, 1.04419e-1, 2.7454e-2),
        (2.5853e-2, 1.9552e-2, 2.8323e-2, 7.796e-3, -1.332e-3, 8.641e-3),
        (((0, 0, -0.05), (0, 0, 0.05), 0.055), ((0, 0, 0), (-0.0825, 0.1, 0), 0.05)),
    ),
    Link(
        (-0.0825, 0.384, 0), -1, (-2.8973, 2.8973), 2000, 1000, 12,
        1.225946, (-1.1953e-2, 4.1065e-2, -3.8437e-2),
        (3.5549e-2, 2.9474e-2, 8.627e-3, -2.117e-3, -4.037e-3, 2.29e-4),
        (((0, 0, -0.28), (0, 0, -0.22), 0.05), ((0, 0.05, -0.2), (0, 0.06, 0), 0.04)),
    ),
    Link(
        (0, 0, 0), 1, (-0.0175, 3.7525), 2000, 1000, 12,
        1.666555, (6.0149e-2, -1.4117e-2, -1.0517e-2),
        (1.964e-3, 4.354e-3, 5.433e-3, 1.09e-4, -1.158e-3, 3.41e-4),
        (((0, 0, -0.06), (0, 0, 0.04), 0.05), ((0, 0, 0), (0.088, 0, 0), 0.045)),
    ),
    Link(
        (0.088, 0, 0), 1, (-2.8973, 2.8973), 2000, 1000, 12,
        0.735522, (1.0517e-2, -4.252e-3, 6.1597e-2),
        (1.2516e-2, 1.0027e-2, 4.815e-3, -4.28e-4, -1.196e-3, -7.41e-4),
        (((0, 0, 0.04), (0, 0, 0.075), 0.04),),
    ),
)  # fmt: skip
DAMPING_TIME = 0.1  # s, by which a servo's stiffness becomes its damping; the fingers' too
ARMATURE, DAMPING = 0.1, 5.0  # kg m^2 and Nm s/rad of hinges, kg and N s/m of slides

HAND_OFFSET, HAND_TURN = 0.107, -0.25 * pi  # m along link 7, rad about it
FREE_HAND_LIMITS, FREE_HAND_STIFFNESS = ((-0.4, 0.4), (0.35, 0.85), (0, 0.3)), 1000.0  # m, N/m
FINGER_OFFSET, FINGER_TRAVEL = 0.0584, 0.05  # m along the hand; m, of each finger to its side
FINGER_STIFFNESS, FINGER_STRENGTH = 500.0, 500.0  # N/m, N
FINGER_MASS, FINGER_INERTIA = 0.015, (2.375e-6, 2.375e-6, 7.5e-7)
FINGERTIP = (0.0, 0.005, 0.07)  # m, in the frame of a finger

CUBE_HALF, CUBE_COLOUR = 0.03, (0.16, 0.55, 0.22, 1.0)  # m; .216 kg at the density of water
WALL_HALF_HEIGHT, WALL_HALF_THICKNESS = 0.033, 0.005  # m


def add_arm(spec: Any, *, published_gains: bool) -> Any:
    """Add the arm with its servos at the origin of an `MjSpec`; returns the body of its hand.

    `sensordata` begins with position and velocity of the origin of link 7.
    """
    from crl.envs.physics import mujoco

    body = spec.worldbody.add_body(name="link0")
    _add_capsule(body, (-0.07, 0, 0.06), (0, 0, 0.06), 0.06, WHITE)
    for number, link in enumerate(LINKS, start=1):
        half_angle = 0.25 * pi * link.quarter_turns
        body = body.add_body(
            name=f"link{number}",
            pos=link.offset,
            quat=(cos(half_angle), sin(half_angle), 0, 0),
            mass=link.mass,
            ipos=link.centre,
            fullinertia=link.inertia,
            explicitinertial=True,
        )
        for end, other_end, radius in link.looks:
            _add_capsule(body, end, other_end, radius, DARK if number == len(LINKS) else WHITE)
        gain = link.published_gain if published_gains else link.stiffness
        joint = f"joint{number}"
        _add_joint(body, joint, mujoco.mjtJoint.mjJNT_HINGE, (0, 0, 1), link.limits)
        _add_servo(spec, joint, gain, link.stiffness, link.strength)
    for sensor in (mujoco.mjtSensor.mjSENS_FRAMEPOS, mujoco.mjtSensor.mjSENS_FRAMELINVEL):
        spec.add_sensor(type=sensor, objtype=mujoco.mjtObj.mjOBJ_XBODY, objname=body.name)
    hand = body.add_body(name="hand", pos=(0, 0, HAND_OFFSET), quat=(cos(0.5 * HAND_TURN), 0, 0, sin(0.5 * HAND_TURN)))
    _add_palm(hand)
    return hand


def add_free_hand(spec: Any) -> Any:
    """Add a hand without an arm: pointing down, weightless, driven along x, y and z; returns its body."""
    from crl.envs.physics import mujoco

    hand = spec.worldbody.add_body(name="gantry").add_body(name="hand", quat=(0, -1, 1, 0), gravcomp=1)
    _add_palm(hand)
    # Axes in the frame of the hand; in that of the world they are x, y and z.
    for name, axis, limits in zip("xyz", ((0, -1, 0), (-1, 0, 0), (0, 0, -1)), FREE_HAND_LIMITS, strict=True):
        hand.add_joint(name=f"hand_{name}", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=axis, range=limits, limited=True)
        _add_servo(spec, f"hand_{name}", FREE_HAND_STIFFNESS, FREE_HAND_STIFFNESS, None)
    return hand


def add_fingers(spec: Any, hand: Any) -> None:
    """Add two fingers that slide apart along y of the hand, with their servos, coupled; sites mark their tips."""
    from crl.envs.physics import mujoco

    for side, quat in (("left", (1, 0, 0, 0)), ("right", (0, 0, 0, 1))):
        finger = hand.add_body(
            name=f"{side}_finger",
            pos=(0, 0, FINGER_OFFSET),
            quat=quat,
            mass=FINGER_MASS,
            inertia=FINGER_INERTIA,
            explicitinertial=True,
        )
        _add_box(finger, f"{side}_finger", (0, 0.0055, 0.035), (0.015, 0.005, 0.04), DARK)
        finger.add_site(name=f"{side}_tip", pos=FINGERTIP, size=(0.005, 0.005, 0.005), rgba=(1, 0.3, 0.3, 1))
        joint = f"{side}_finger"
        _add_joint(finger, joint, mujoco.mjtJoint.mjJNT_SLIDE, (0, 1, 0), (0, FINGER_TRAVEL))
        _add_servo(spec, joint, FINGER_STIFFNESS, FINGER_STIFFNESS, FINGER_STRENGTH)
    spec.add_equality(
        type=mujoco.mjtEq.mjEQ_JOINT,
        objtype=mujoco.mjtObj.mjOBJ_JOINT,
        name1="left_finger",
        name2="right_finger",
        data=(0, 1, *10 * (0,)),  # one is the other
        solref=(0.005, 1),
        solimp=(0.95, 0.99, 0.001, 0.5, 2),
    )


def add_table(spec: Any) -> None:
    """Add the plane z = 0."""
    from crl.envs.physics import mujoco

    spec.worldbody.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        pos=(0, 0.2, 0),
        size=(2.8, 2.4, 0.1),
        contype=0,
        conaffinity=0,
        rgba=TABLE,
    )


def add_cube(spec: Any) -> None:
    """Add a free cube."""
    cube = spec.worldbody.add_body(name="cube", pos=(0, 0.6, CUBE_HALF))
    cube.add_freejoint(name="cube")
    _add_box(cube, "cube", (0, 0, 0), (CUBE_HALF, CUBE_HALF, CUBE_HALF), CUBE_COLOUR)


def add_region(
    spec: Any, name: str, centre: tuple[float, float], half: float, colour: Colour, *, walls: bool
) -> list[str]:
    """Mark a square of the table, or wall it in; returns the names of the walls."""
    x, y = centre
    if not walls:
        _add_box(spec.worldbody, name, (x, y, 0.0005), (half, half, 0.0005), colour)
        return []
    height, thickness = WALL_HALF_HEIGHT, WALL_HALF_THICKNESS
    names = [f"{name}_{side}" for side in ("near", "far", "left", "right")]
    for wall, sign in zip(names[:2], (-1, 1), strict=True):
        size = (half + thickness, thickness, height)
        _add_box(spec.worldbody, wall, (x, y + sign * half, height), size, colour)
    for wall, sign in zip(names[2:], (-1, 1), strict=True):
        size = (thickness, half - thickness, height)
        _add_box(spec.worldbody, wall, (x + sign * half, y, height), size, colour)
    return names


def add_fence(spec: Any) -> list[str]:
    """Wall in what the free hand reaches, unseen; returns the names of the walls."""
    names = ["fence_near", "fence_far", "fence_left", "fence_right"]
    for name, y in zip(names[:2], FREE_HAND_LIMITS[1], strict=True):
        _add_box(spec.worldbody, name, (0, y, 0.15), (0.41, 0.01, 0.15), UNSEEN)
    for name, x in zip(names[2:], FREE_HAND_LIMITS[0], strict=True):
        _add_box(spec.worldbody, name, (x, 0.6, 0.15), (0.01, 0.24, 0.15), UNSEEN)
    return names


def add_contacts(
    spec: Any, first: Iterable[str], second: Iterable[str], *, friction: float = 1.0, time: float = 0.02
) -> None:
    """Let each of these geoms touch each of those; nothing else touches anything.

    A pair has a friction of its own: what geoms say of theirs does not matter. `time`, s, is the contact's time
    constant, not below two physics steps.
    """
    seconds = list(second)
    for name in first:
        for other in seconds:
            slide = (friction, friction, 0.005, 0.0001, 0.0001)
            spec.add_pair(geomname1=name, geomname2=other, friction=slide, solref=(time, 1))


def add_tip_sensors(spec: Any) -> None:
    """Let `sensordata` go on with the positions of left and right fingertip."""
    from crl.envs.physics import mujoco

    for side in ("left", "right"):
        spec.add_sensor(
            name=f"{side}_tip",
            type=mujoco.mjtSensor.mjSENS_FRAMEPOS,
            objtype=mujoco.mjtObj.mjOBJ_SITE,
            objname=f"{side}_tip",
        )


def _add_palm(hand: Any) -> None:
    _add_capsule(hand, (0, -0.06, 0.035), (0, 0.06, 0.035), 0.04, WHITE, name="hand", density=1000)  # .871 kg


def _add_joint(body: Any, name: str, kind: Any, axis: Vector, limits: tuple[float, float]) -> None:
    body.add_joint(name=name, type=kind, axis=axis, range=limits, limited=True, armature=ARMATURE, damping=DAMPING)


def _add_servo(spec: Any, joint: str, gain: float, stiffness: float, strength: float | None) -> None:
    """A force of gain · target - stiffness · position - damping · speed, within ± strength if that is given."""
    from crl.envs.physics import mujoco

    spec.add_actuator(
        name=joint,
        target=joint,
        trntype=mujoco.mjtTrn.mjTRN_JOINT,
        gaintype=mujoco.mjtGain.mjGAIN_FIXED,
        biastype=mujoco.mjtBias.mjBIAS_AFFINE,
        gainprm=(gain, *9 * (0,)),
        biasprm=(0, -stiffness, -DAMPING_TIME * stiffness, *7 * (0,)),
        forcelimited=strength is not None,
        forcerange=(-(strength or 0), strength or 0),
    )


def _add_capsule(
    body: Any, end: Vector, other_end: Vector, radius: float, rgba: Colour, *, name: str = "", density: float = 0
) -> None:
    from crl.envs.physics import mujoco

    body.add_geom(
        name=name,
        type=mujoco.mjtGeom.mjGEOM_CAPSULE,
        fromto=(*end, *other_end),
        size=(radius, 0, 0),
        density=density,
        contype=0,
        conaffinity=0,
        rgba=rgba,
    )


def _add_box(body: Any, name: str, pos: Vector, half_sizes: Vector, rgba: Colour) -> None:
    from crl.envs.physics import mujoco

    box = mujoco.mjtGeom.mjGEOM_BOX
    body.add_geom(name=name, type=box, pos=pos, size=half_sizes, contype=0, conaffinity=0, rgba=rgba)
