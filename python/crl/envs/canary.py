"""Is this MuJoCo sound? Short fixed rollouts of every environment, beside what known releases made of them.

python -m crl.envs.canary    writes the summaries for the installed release into canary.json
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

KNOWN = Path(__file__).with_suffix(".json")
WORLDS, SEED = 2, 0
STEPS, AMPLITUDE = 20, 0.3  # of the actions: enough to move, too little to throw a robot over
WILD_STEPS = 60  # more, of full amplitude: nothing of them can be compared, but that the physics survives
# Worlds that touch things are chaotic: other processors round otherwise, and what they round differently grows. How
# much a number may differ is measured: by how much it does when the start is disturbed, by far more than rounding.
DISTURBANCES = (1e-12, 1e-11, 1e-10, 1e-9)
MARGIN, LEAST = 10.0, 1e-6  # times the largest of those differences; and a share of the number itself
ELSEWHERE = 0.01  # the share by which a number may differ from that of another release


def summary(name: str, disturbance: float = 0.0) -> dict[str, float]:
    """A few numbers that say what the physics of environment `name` did in `STEPS` control steps.

    Args:
        name: the environment.
        disturbance: standard deviation of normal noise on the starting positions.

    Returns:
        `mass` of the model, kg; then of `WORLDS` worlds: `height` of their centres of mass at the end, mean, m;
        `position`, norm of all their coordinates at the end; `speed`, the largest of a coordinate at any step;
        `contacts`, mean over the steps. At last `diverged`: how often MuJoCo gave up, `WILD_STEPS` more included.
    """
    from crl.envs.physics import DIVERGENCE_WARNINGS, mujoco
    from crl.envs.registry import create
    from crl.envs.vector_env import VectorEnv

    env = VectorEnv(create(name, {}), WORLDS, seed=SEED, num_threads=1)
    env.reset(seed=SEED)
    batch, repeat = env.batch, env.env_spec.action_repeat
    noise = np.random.default_rng(SEED).standard_normal(batch.qpos.shape)
    batch.qpos[:] += disturbance * noise
    models = [batch.get_model(world) for world in range(WORLDS)]
    data = [mujoco.MjData(model) for model in models]
    speed, contacts = 0.0, 0
    phase = np.arange(WORLDS)[:, None] + 1.3 * np.arange(env.env_spec.action_dim)
    for step in range(STEPS):
        batch.ctrl[:] = env.task.control(AMPLITUDE * np.sin(0.7 * step + phase), batch)
        batch.step(nstep=repeat)  # not env.step: an episode that ends would begin anew
        speed = max(speed, float(np.abs(batch.qvel).max()))
        for world in range(WORLDS):
            mujoco.mj_forward(models[world], batch.get_data(world, data[world]))
            contacts += data[world].ncon
    numbers = {
        "mass": float(models[0].body_mass.sum()),
        "height": float(np.mean([world.subtree_com[0, 2] for world in data])),
        "position": float(np.linalg.norm(batch.qpos)),
        "speed": speed,
        "contacts": contacts / STEPS,
    }
    for step in range(WILD_STEPS):
        batch.ctrl[:] = env.task.control(np.sin(0.7 * step + phase), batch)
        batch.step(nstep=repeat)
    numbers["diverged"] = float(batch.warning[:, DIVERGENCE_WARNINGS, 1].sum())
    env.close()
    return numbers


def measured(name: str) -> dict[str, list[float]]:
    """The summary of `name`, and how far each number may be off: [value, tolerance]."""
    numbers = summary(name)
    others = [summary(name, disturbance) for disturbance in DISTURBANCES]
    found = {}
    for number, value in numbers.items():
        spread = max(abs(other[number] - value) for other in others)
        found[number] = [float(f"{value:.9g}"), float(f"{MARGIN * spread + LEAST * abs(value) + 1e-9:.2g}")]
    return found


@dataclass(frozen=True)
class Change:
    """A number that is not what it was."""

    name: str
    number: str
    expected: float
    tolerance: float
    got: float

    def __str__(self) -> str:
        return f"{self.name}: {self.number} is {self.got:.9g}, expected {self.expected:.9g} ± {self.tolerance:.2g}"


@dataclass(frozen=True)
class Report:
    """What came of a comparison."""

    version: str
    """The installed MuJoCo."""
    reference: str
    """The release compared with: the same, or the nearest known."""
    compared: int
    """Environments."""
    changes: list[Change]
    unknown: list[str]
    """Environments of which that release's summary is not known."""

    def __str__(self) -> str:
        known = (
            "" if self.version == self.reference else f" (unknown here; compared with {self.reference}, the nearest)"
        )
        sound = f"MuJoCo {self.version}{known}: {self.compared - len({c.name for c in self.changes})}"
        lines = [f"{sound} of {self.compared} environments do as they did"]
        return "\n".join([*lines, *map(str, self.changes)])


def check(names: Iterable[str] | None = None, known: dict[str, Any] | None = None) -> Report:
    """Compare environments with what the installed MuJoCo, or the nearest known release, made of them.

    Args:
        names: of environments; by default all.
        known: summaries by release; by default those that come with this package.
    """
    from crl import envs
    from crl.envs.physics import mujoco

    known = json.loads(KNOWN.read_text(encoding="utf-8")) if known is None else known
    version = str(mujoco.__version__)
    reference = nearest(version, known)
    changes, unknown, compared = [], [], 0
    for name in envs.names() if names is None else names:
        expected = known[reference].get(name)
        if expected is None:
            unknown.append(name)
            continue
        compared += 1
        got = summary(name)
        for number, (value, tolerance) in expected.items():
            if version != reference:
                tolerance = max(tolerance, ELSEWHERE * abs(value))
            if not math.isclose(got[number], value, rel_tol=0.0, abs_tol=tolerance):
                changes.append(Change(name, number, value, tolerance, got[number]))
    return Report(version, reference, compared, changes, unknown)


def nearest(version: str, known: Iterable[str]) -> str:
    """The known release closest to `version`: itself, or of the same major number if there is one, and so on."""

    def parts(release: str) -> list[int]:
        return [int(part) for part in release.split(".")[:3] if part.isdigit()]

    return min(known, key=lambda release: [abs(a - b) for a, b in zip(parts(release), parts(version), strict=False)])


def write(path: Path = KNOWN) -> None:
    """Put the summaries of all environments under the installed release into `path`, beside those of others."""
    from crl import envs
    from crl.envs.physics import mujoco

    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    known[str(mujoco.__version__)] = {name: measured(name) for name in envs.names()}
    releases = (
        f"{json.dumps(version)}: {{\n"
        + ",\n".join(f" {json.dumps(name)}: {json.dumps(numbers)}" for name, numbers in summaries.items())
        + "\n}"
        for version, summaries in sorted(known.items())
    )
    path.write_text("{\n" + ",\n".join(releases) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    write()
