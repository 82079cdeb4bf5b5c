"""Fetch and Meta-World's Sawyer seen by a camera: images as observations and as goals, of Eysenbach et al. (2022).

An episode begins twice: first robot and object are brought to where they shall be, of which a camera takes the goal's
image; then to where they start. Success is judged by where things are, held against where they were when it was taken.
Cameras, starts and goals are those published; shadows, reflections, lasers and markers are not drawn.
"""

from __future__ import annotations

import abc
import atexit
import os
import threading
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict
from numpy.typing import NDArray

from crl.envs.physics import mujoco
from crl.envs.third_party import global_random
from crl.rendering import COSTLY, backend

SIZE = 64
"""Pixels on a side."""
NEAR = 0.05
"""m: nearer than this to where the goal has it is success."""

Place = NDArray[np.float64]  # x, y, z in m
Image = NDArray[np.uint8]  # (64, 64, 3)
Shown = dict[str, Image]


class Camera:
    """Takes pictures of worlds that have the same model.

    Args:
        model: a compiled `mujoco.MjModel`; its camera may be moved later.
        view: the `mujoco.MjvCamera` to look through.

    Raises:
        MissingExtraError: nothing here can draw.
    """

    def __init__(self, model: Any, view: Any) -> None:
        # A picture so small gains nothing by threads, which would take turns with those that step worlds.
        os.environ.setdefault("LP_NUM_THREADS", "0")  # of Mesa's software renderer
        self._context = backend()[1](SIZE, SIZE)
        self._context.make_current()
        self._renderer = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._renderer)
        self._scene, self._view = mujoco.MjvScene(model, maxgeom=1000), view
        self._option = mujoco.MjvOption()
        self._option.sitegroup[:] = 0
        self._square = mujoco.MjrRect(0, 0, SIZE, SIZE)
        atexit.register(self._context.free)  # while there still is an OpenGL to free it from

    def __call__(self, model: Any, data: Any) -> Image:
        """What is seen of a world."""
        everything, picture = mujoco.mjtCatBit.mjCAT_ALL, np.empty((SIZE, SIZE, 3), dtype=np.uint8)
        mujoco.mjv_updateScene(model, data, self._option, None, self._view, everything, self._scene)
        for flag in COSTLY:
            self._scene.flags[flag] = False
        self._context.make_current()
        mujoco.mjr_render(self._square, self._scene, self._renderer)
        mujoco.mjr_readPixels(picture, None, self._square, self._renderer)
        return np.flipud(picture)


_cameras = threading.local()
"""By task. A context of OpenGL is of one thread, and takes what many worlds can share."""


class RobotImages(gymnasium.Env[Shown, Any], abc.ABC):
    """A robot in front of a camera. `observation` and `achieved_goal` are one image, `desired_goal` another."""

    metadata = {"render_modes": []}  # noqa: RUF012
    summary: str
    origin = "Eysenbach et al. 2022, images"
    goal_meaning: str
    measured = 3
    """Coordinates of the distance: x, y and z, or x and y alone."""

    def __init__(self, world: Any) -> None:
        self._world, self.action_space = world, world.action_space
        model = world.model
        model.geom_rgba[model.body_mocapid[model.geom_bodyid] >= 0] = 0  # lasers that show where the hand is drawn to
        image = Box(0, 255, (SIZE, SIZE, 3), np.uint8)
        self.observation_space: gymnasium.Space[Any] = Dict(observation=image, achieved_goal=image, desired_goal=image)

    @abc.abstractmethod
    def _view(self) -> Any:
        """The camera, as `mujoco.MjvCamera`."""

    @abc.abstractmethod
    def _begin(self) -> None:
        """A new episode of the world itself, of whatever it draws next."""

    @abc.abstractmethod
    def _to_goal(self) -> bool:
        """Bring robot and object to a goal; false if that went wrong."""

    @abc.abstractmethod
    def _to_start(self) -> bool:
        """Bring them to a start, likewise."""

    @abc.abstractmethod
    def _place(self) -> Place:
        """Where that is which has to be at the goal."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Shown, dict[str, Any]]:
        super().reset(seed=seed)
        self._until_well(self._to_goal)
        self._goal, self._goal_image = self._place(), self._look()
        self._until_well(self._to_start)
        return self._shown(), {"distance": self._distance()}

    def step(self, action: Any) -> tuple[Shown, Any, bool, bool, dict[str, Any]]:
        self._world.step(action)
        distance = self._distance()
        return self._shown(), float(distance < NEAR), False, False, {"success": distance < NEAR, "distance": distance}

    def close(self) -> None:
        self._world.close()

    def _until_well(self, arrange: Callable[[], bool]) -> None:
        self._begin()
        while not arrange():
            self._begin()

    def _distance(self) -> float:
        return float(np.linalg.norm((self._place() - self._goal)[: self.measured]))

    def _look(self) -> Image:
        task = type(self).__name__
        if not hasattr(_cameras, task):
            setattr(_cameras, task, Camera(self._world.model, self._view()))
        return getattr(_cameras, task)(self._world.model, self._world.data)  # type: ignore[no-any-return]

    def _shown(self) -> Shown:
        image = self._look()
        return {"observation": image, "achieved_goal": image, "desired_goal": self._goal_image}


class FetchReach(RobotImages):
    """The hand goes to a place in the air. The goal's image is taken where a hand driven there came to be."""

    summary = "Fetch's hand, seen by a camera"
    goal_meaning = "the image with the hand there; places as drawn by gymnasium-robotics"

    def _view(self) -> Any:
        return _looking_at((1.2, 0.8, 0.5), distance=0.8, azimuth=180, elevation=-30)

    def _begin(self) -> None:
        self._world.reset(seed=int(self.np_random.integers(2**32)))

    def _to_goal(self) -> bool:
        for _ in range(10):
            self._drive(10 * (self._world.goal - self._hand()))
        return True

    def _to_start(self) -> bool:
        return True

    def _place(self) -> Place:
        return self._hand()

    def _hand(self) -> Place:
        return np.array(self._world.data.site("robot0:grip").xpos)

    def _drive(self, towards: Place) -> None:
        """A step with the hand moving there, at most with the largest action."""
        self._world.step(np.append(np.clip(towards, -1, 1), 0.0))


class FetchPush(FetchReach):
    """The hand, behind a block, pushes it over the table. It starts beside the block, in goals too."""

    summary = "Fetch pushing a block, seen by a camera"
    goal_meaning = "the image with block and hand there; places of the block as drawn by gymnasium-robotics"
    measured = 2

    def _view(self) -> Any:
        return _looking_at((1.25, 0.8, 0.4), distance=0.65, azimuth=90, elevation=-40)

    def _to_goal(self) -> bool:
        return self._behind_block(self._place()[:2])

    def _to_start(self) -> bool:
        return self._behind_block(np.array([1.15, 0.75]))

    def _place(self) -> Place:
        return np.array(self._world.data.body("object0").xpos)

    def _behind_block(self, place: Place) -> bool:
        """Put the block at x, y and let the hand come to it from the robot's side; false if it fell."""
        for _ in range(8):
            self._drive(np.array([-1.0, 0.0, 0.0]))
        self._world.data.joint("object0:joint").qpos[:2] = place
        for _ in range(100):
            towards = self._place() - [0.02, 0.0, 0.0] - self._hand()
            if np.linalg.norm(towards) < 0.06:
                break
            self._drive(towards)
        return bool(self._place()[2] > 0.4)


FETCH = {"FetchReach": FetchReach, "FetchPush": FetchPush}
"""gymnasium-robotics' environments that have images, but for their version."""


class Sawyer(RobotImages):
    """What Meta-World's tasks have in common: a hand that a mocap body draws, an object, a camera that is moved."""

    def _view(self) -> Any:
        camera = mujoco.MjvCamera()
        camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, self._world.model.camera("corner2").id
        return camera

    def _begin(self) -> None:
        # Meta-World takes its seed apart from its reset, which draws from NumPy's generator too.
        draw = int(self.np_random.integers(2**32))
        self._world.seed(draw)
        with global_random(draw):
            self._world.reset()

    def _place(self) -> Place:
        return np.array(self._world.get_body_com("obj"))

    def _hold(self, steps: int, hand: Callable[[], Place], gripper: float, obj: Place | None = None) -> None:
        """Draw the hand to a place, the gripper opening (-1) or closing (1), while the object is kept where it is."""
        for _ in range(steps):
            self._world.data.mocap_pos[0] = hand()
            if obj is not None:
                self._world._set_obj_xyz(obj)
            self._world.do_simulation(np.array([gripper, -gripper]), self._world.frame_skip)


class SawyerPush(Sawyer):
    """The hand, which starts at a puck with the gripper open, pushes it away from the robot."""

    summary = "Meta-World's Sawyer arm pushing a puck, seen by a camera"
    goal_meaning = "the image with puck and hand there; U(-0.1, 0.1) m beside and U(0, 0.25) m beyond a start"

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        camera = world.model.camera("corner2")
        camera.fovy, camera.pos, camera.quat = 45, (0.7, 0.65, 0.1), (0.5, -0.5, 0.5, -0.5)

    def _to_goal(self) -> bool:
        place = self._place() + self.np_random.uniform([-0.1, 0.0, 0.0], [0.1, 0.25, 0.0])
        self._hold(200, self._place, -1.0, place)
        return True

    def _to_start(self) -> bool:
        self._world._set_obj_xyz(self._place() - [0.0, 0.2, 0.0])
        self._hold(20, self._place, -1.0)
        return True


class SawyerBin(Sawyer):
    """The hand, which starts over a block in one bin, carries it to the other. Height is not measured."""

    summary = "Meta-World's Sawyer arm between two bins, seen by a camera"
    goal_meaning = "the image with block and hand over the other bin, U(±0.05) m on x and y off its middle"
    measured = 2

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        camera = world.model.camera("corner2")
        camera.fovy, camera.pos = 14, (1.3, -0.05, 0.9)

    def _to_goal(self) -> bool:
        place = np.array(self._world.get_body_com("bin_goal"))
        place[:2] += self.np_random.uniform(-0.05, 0.05, 2)
        place[2] = 0.05
        hand = place + np.array([0.0, 0.0, self.np_random.uniform(0.0, 0.05)])
        self._world._set_obj_xyz(place)
        self._hold(21, lambda: hand, 0.0)
        self._hold(19, lambda: hand, 1.0)
        return True

    def _to_start(self) -> bool:
        hand = self._place() + np.array([0.0, 0.0, 0.05])
        self._hold(40, lambda: hand, 0.0)
        return True


SAWYER = {"push": SawyerPush, "bin-picking": SawyerBin}
"""Meta-World's tasks that have images."""


def _looking_at(place: tuple[float, float, float], *, distance: float, azimuth: float, elevation: float) -> Any:
    camera = mujoco.MjvCamera()
    camera.lookat[:], camera.distance, camera.azimuth, camera.elevation = place, distance, azimuth, elevation
    return camera
