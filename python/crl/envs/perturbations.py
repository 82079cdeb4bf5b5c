"""Worlds other than those that were learnt: other friction, masses, starts or colours, to see what a policy stands.

After the robustness experiments of Eysenbach et al. (2022, appendix). A perturbed world is made for one evaluation, out
of a model of its own, and episodes have the starts and goals that they have without.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from numpy.typing import NDArray

from crl.envs import adapters
from crl.envs.adapters import is_adapted
from crl.envs.registry import create
from crl.envs.spec import EnvSpec
from crl.envs.task import Array, Start, Task
from crl.errors import ConfigError, nearest

DIRECTIONS = 100
"""How many are tried, of a start's shift, before it is given up."""
DEEPER = 1e-3
"""m. How much deeper than before things may be in each other behind a shift: nothing, but for rounding."""


@dataclass(frozen=True, kw_only=True)
class Perturbation:
    """What is otherwise in a world. The defaults change nothing.

    Raises:
        ConfigError: a value is not a number or out of its range.
    """

    friction: float = 1.0
    """Factor of the friction of all contacts, sliding, torsional and rolling; above 0."""
    mass: float = 1.0
    """Factor of the masses and moments of inertia of all bodies; above 0. Armatures of joints and forces stay."""
    start_shift: float = 0.0
    """m. Episodes start this far, in a direction along the floor drawn for each, from where they would: the robot, if
    it moves along the floor, otherwise the object. Directions that end within something are drawn again."""
    colour: float = 0.0
    """Share of the full range, 0 to 1. Colours of all images, goals' too, are shifted by a vector of this length, whose
    direction is drawn for each episode, and cut off where the range ends."""

    def __post_init__(self) -> None:
        for name, value in self.changes(neutral=True).items():
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            factor = name in ("friction", "mass")
            if not number or value < 0 or (factor and value == 0) or (name == "colour" and value > 1):
                bounds = "above 0" if factor else "from 0 to 1" if name == "colour" else "at least 0"
                raise ConfigError(f"perturb: {name} must be a number {bounds}, got {value!r}.")

    @classmethod
    def parse(cls, text: str) -> Perturbation:
        """`friction=1.5,start-shift=0.2` as a Perturbation.

        Raises:
            ConfigError: an entry is not NAME=NUMBER of a name that there is, or a name is there twice.
        """
        known = [_shown(field.name) for field in fields(cls)]
        values: dict[str, Any] = {}
        for entry in text.split(","):
            name, equals, value = (part.strip() for part in entry.partition("="))
            if not equals or name not in known:
                hint = nearest(name, known) if equals else ""
                raise ConfigError(f"perturb: expected NAME=NUMBER,... of {', '.join(known)}; got {entry!r}.{hint}")
            if (key := name.replace("-", "_")) in values:
                raise ConfigError(f"perturb: {name} is there twice in {text!r}.")
            try:
                values[key] = float(value)
            except ValueError:
                values[key] = value  # to be refused by name
        return cls(**values)

    def changes(self, *, neutral: bool = False) -> dict[str, float]:
        """What is otherwise, by the names that `parse` takes; with `neutral`, all values."""
        values = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        return {_shown(name): value for name, (value, default) in values.items() if neutral or value != default}

    def __str__(self) -> str:
        return ", ".join(f"{name}={value:g}" for name, value in self.changes().items()) or "none"


def make(
    name: str, num_envs: int, perturbation: Perturbation, *, seed: int, num_threads: int | None, **options: Any
) -> Any:
    """`crl.envs.make` with a perturbation.

    Raises:
        As `crl.envs.make`, and ConfigError where the world has nothing that could be perturbed so.
    """
    if is_adapted(name):
        around = partial(PerturbedEnv, perturbation=perturbation)
        return adapters.make(name, num_envs, seed=seed, num_threads=num_threads, options=options, around=around)
    from crl.envs.vector_env import VectorEnv

    task = PerturbedTask(create(name, options), perturbation, seed)
    return VectorEnv(task, num_envs, seed=seed, num_threads=num_threads)


def check(name: str, perturbation: Perturbation, **options: Any) -> None:
    """Raise what `make` would, having made one world at most."""
    here = {"workers": 0} if is_adapted(name) else {}
    make(name, 1, perturbation, seed=0, num_threads=1, **{**options, **here}).close()


class PerturbedTask(Task):
    """`task` in perturbed worlds; all else is the task's.

    Args:
        task: of this package's, used by nobody else.
        perturbation: of each world.
        seed: of the directions of colours.

    Raises:
        ConfigError: the world has nothing that could be perturbed so.
    """

    def __init__(self, task: Task, perturbation: Perturbation, seed: int) -> None:
        self._task, self._perturbation, self._seed = task, perturbation, seed
        self.spec = task.spec
        for name in vars(Task):
            if not name.startswith("_") and name not in vars(PerturbedTask):
                setattr(self, name, getattr(task, name))
        if perturbation.colour and not task.spec.image:
            raise _no_colours(task.spec.name)

    @property
    def state_spec(self) -> EnvSpec:
        return self._task.state_spec

    def build_model(self) -> Any:
        model = copy.copy(self._task.build_model())
        self._place = _Place.of(model) if self._perturbation.start_shift else None
        name = self.spec.name
        if self._perturbation.start_shift and self._place is None:
            raise ConfigError(f"perturb: nothing in {name} moves along the floor, so start-shift says nothing.")
        perturb(model, self._perturbation, name)
        self._models = [model]
        return model

    def build_worlds(self, seeds: NDArray[np.uint64]) -> list[Any]:
        self._models = [copy.copy(model) for model in self._task.build_worlds(seeds)]
        for model in self._models:
            perturb(model, self._perturbation, self.spec.name)
        return self._models

    def start(self, rng: np.random.Generator, count: int) -> Start:
        return self.start_in(rng, np.arange(count))

    def start_in(self, rng: np.random.Generator, worlds: NDArray[np.intp]) -> Start:
        start = self._task.start_in(rng, worlds)
        if self._place is not None:
            for qpos, world in zip(start.qpos, worlds, strict=True):
                model = self._models[world if self.differs_by_world else 0]
                qpos[:] = self._shifted(rng, qpos, model, self._place)
        return start

    def _shifted(self, rng: np.random.Generator, qpos: Array, model: Any, place: _Place) -> Array:
        """A start (nq,) with that place elsewhere."""
        deepest = place.depth(model, qpos) + DEEPER
        for angle in rng.uniform(0, 2 * np.pi, DIRECTIONS):
            shift = self._perturbation.start_shift * np.array([np.cos(angle), np.sin(angle)])
            shifted = qpos.copy()
            shifted[place.entries] += shift
            if place.depth(model, shifted) <= deepest:
                return shifted
        raise ConfigError(
            f"perturb: start-shift {self._perturbation.start_shift:g} leads a start in {self.spec.name} into something "
            f"in {DIRECTIONS} directions; choose a smaller one."
        )

    def draw(self, state: Array | None, goal: Array | None) -> NDArray[np.uint8]:
        images = self._task.draw(state, goal)
        rng = np.random.default_rng(self._seed)  # the same at every call, so that a world keeps its colours
        return _coloured(images, self._perturbation.colour, rng.normal(size=(len(images), images.shape[-1])))


class PerturbedEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment of another project in a perturbed world: the MuJoCo model that it made for itself is changed.

    Args:
        env: as it was made.
        perturbation: without `start_shift`.

    Raises:
        ConfigError: its model cannot be reached, or has nothing that could be perturbed so.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], perturbation: Perturbation) -> None:
        super().__init__(env)
        self._perturbation, self._changed = perturbation, list[Any]()
        self._rng = np.random.default_rng(0)
        self._name = env.spec.id if env.spec else type(env.unwrapped).__name__
        if perturbation.start_shift:
            raise ConfigError(f"perturb: {self._name} draws its own starts; start-shift is for worlds of this package.")
        if perturbation.colour and getattr(env.observation_space["observation"], "dtype", None) != np.uint8:  # type: ignore[index]
            raise _no_colours(self._name)
        self._change()
        if {"friction", "mass"} & perturbation.changes().keys() and not self._changed:
            raise ConfigError(f"perturb: {self._name} has no MuJoCo model that can be reached for friction and mass.")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        shown, info = self.env.reset(seed=seed, options=options)
        self._change()  # one that has made itself another model
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        if self._perturbation.colour:
            self._direction = self._rng.normal(size=(1, next(iter(shown.values())).shape[-1]))
        return self._seen(shown), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        shown, reward, terminated, truncated, info = self.env.step(action)
        return self._seen(shown), reward, terminated, truncated, info

    def _seen(self, shown: dict[str, Any]) -> dict[str, Any]:
        if not self._perturbation.colour:
            return shown
        colour = self._perturbation.colour
        return {key: _coloured(image[None], colour, self._direction)[0] for key, image in shown.items()}

    def _change(self) -> None:
        for model in _models(self.env):
            if not any(model is known for known in self._changed):
                perturb(model, self._perturbation, self._name)
                self._changed.append(model)


def perturb(model: Any, perturbation: Perturbation, name: str) -> None:
    """Change friction and masses of a compiled model in place.

    Args:
        model: an `MjModel` that nobody else has.
        perturbation: of which the rest is not the model's.
        name: of the environment, for the refusal.

    Raises:
        ConfigError: there is no contact with friction, of which a factor could be taken.
    """
    from crl.envs.physics import mujoco

    if perturbation.friction != 1:
        if not _has_friction(model):
            raise ConfigError(f"perturb: no two things in {name} touch with friction, so friction says nothing.")
        model.geom_friction *= perturbation.friction
        model.pair_friction *= perturbation.friction
    if perturbation.mass != 1:
        model.body_mass *= perturbation.mass
        model.body_inertia *= perturbation.mass
        welds = model.eq_data.copy()  # which robots led by a mocap body set themselves
        mujoco.mj_setConst(model, mujoco.MjData(model))  # what the compiler has derived of masses, and of welds
        model.eq_data[:] = welds


def _has_friction(model: Any) -> bool:
    """Whether any contact that can be has more than a normal force: MuJoCo's rules of which, and of its dimension."""
    body = model.body_weldid[model.geom_bodyid]
    parent = model.body_weldid[model.body_parentid[body]]
    touches = model.geom_contype[:, None] & model.geom_conaffinity[None]
    related = (body[:, None] == body[None]) | ((parent[:, None] == body[None]) & (body[None] != 0))
    possible = (touches | touches.T).astype(bool) & ~related & ~related.T
    priority, dim = model.geom_priority[:, None], np.broadcast_to(model.geom_condim[:, None], possible.shape)
    contact = np.where(priority == priority.T, np.maximum(dim, dim.T), np.where(priority > priority.T, dim, dim.T))
    return bool((possible & (contact > 1)).any() or (model.pair_dim > 1).any())


class _Place(NamedTuple):
    """Where along the floor something is: by which entries of qpos it is moved, a metre a unit; its body; all walls."""

    entries: list[int]
    body: int
    walls: list[int]

    @classmethod
    def of(cls, model: Any) -> _Place | None:
        """That of the first body that can be moved along the floor, and is no part of another; None: there is none."""
        from crl.envs.physics import mujoco

        data = mujoco.MjData(model)
        mujoco.mj_kinematics(model, data)
        walls = [geom for geom in range(model.ngeom) if model.geom(geom).name.startswith("wall")]
        for body in range(1, model.nbody):
            if model.body_weldid[model.body_parentid[body]] != 0:
                continue  # a part of something, as fingers are
            joints = range(model.body_jntadr[body], model.body_jntadr[body] + model.body_jntnum[body])
            first = [int(model.jnt_qposadr[joint]) for joint in joints]
            types = [model.jnt_type[joint] for joint in joints]
            if types[:1] == [mujoco.mjtJoint.mjJNT_FREE]:
                return cls([first[0], first[0] + 1], body, walls)
            axes = {
                entry: data.xaxis[joint]
                for entry, joint, kind in zip(first, joints, types, strict=True)
                if kind == mujoco.mjtJoint.mjJNT_SLIDE and abs(data.xaxis[joint][2]) < 1e-6
            }
            if len(axes) == 2 and abs(np.dot(*axes.values())) < 1e-6:
                return cls(list(axes), body, walls)
        return None

    def depth(self, model: Any, qpos: Array) -> float:
        """How deep the deepest contact is in this pose, m; endless beyond limits of slides or the outermost walls."""
        from crl.envs.physics import mujoco

        data = mujoco.MjData(model)
        data.qpos[:] = qpos
        mujoco.mj_kinematics(model, data)
        mujoco.mj_collision(model, data)
        limited = (model.jnt_type == mujoco.mjtJoint.mjJNT_SLIDE) & model.jnt_limited.astype(bool)
        place, bounds = qpos[model.jnt_qposadr[limited]], model.jnt_range[limited].T
        if self.walls:
            place = np.concatenate((place, data.xpos[self.body][:2]))
            centres, sizes = model.geom_pos[self.walls, :2], model.geom_size[self.walls, :2]
            around = np.stack(((centres - sizes).min(axis=0), (centres + sizes).max(axis=0)))
            bounds = np.concatenate((bounds, around), axis=1)
        if ((place < bounds[0]) | (place > bounds[1])).any():
            return math.inf
        return float(max(0.0, -data.contact.dist.min(initial=0.0)))


def _coloured(images: NDArray[np.uint8], share: float, direction: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Images (n, height, width, channels) shifted by `share` of 255 along directions (n, channels), of any length."""
    if not share:
        return images
    shift = 255 * share * direction / np.linalg.norm(direction, axis=-1, keepdims=True)
    coloured: NDArray[np.uint8] = np.clip(np.rint(images + shift[:, None, None]), 0, 255).astype(np.uint8)
    return coloured


def _models(env: gymnasium.Env[Any, Any]) -> Iterator[Any]:
    """The MuJoCo models of an environment and of those within it: a maze has its robot so, a task of ours its world."""
    from crl.envs.physics import mujoco

    world = env.unwrapped
    if isinstance(model := getattr(world, "model", None), mujoco.MjModel):
        yield model
    for value in vars(world).values():
        if isinstance(value, gymnasium.Env):
            yield from _models(value)


def _no_colours(name: str) -> ConfigError:
    return ConfigError(f"perturb: {name} shows no images, so colour says nothing.")


def _shown(field: str) -> str:
    return field.replace("_", "-")
