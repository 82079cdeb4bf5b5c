"""What a base install of `crl` must do, with NumPy alone: run from outside the checkout, by the Python that has it.

smoke.py [--base]    with --base, nothing but the base dependencies may be installed
"""

import importlib.metadata
import re
import sys
import tempfile
from pathlib import Path

import numpy as np

import crl

BASE = {"crl", "numpy", "click", "rich", "markdown-it-py", "mdurl", "pygments", "colorama"}
"""The base dependencies with their own."""

CHECKOUT = Path(__file__).resolve().parents[1]


def main() -> None:
    assert not Path(crl.__file__).resolve().is_relative_to(CHECKOUT), f"crl comes from the checkout: {crl.__file__}"
    if sys.argv[1:] == ["--base"]:
        names = (distribution.metadata["Name"] for distribution in importlib.metadata.distributions())
        installed = {re.sub(r"[-_.]+", "-", name).lower() for name in names}
        assert installed <= BASE, f"the base wheel brought {sorted(installed - BASE)}"

    worlds, steps = 3, 40
    buffer = crl.TrajectoryBuffer(
        num_envs=worlds, capacity=worlds * steps, observation=(2,), action=(1,), achieved_goal=(1,), seed=1
    )
    for step in range(steps):
        buffer.add(
            observation=np.stack([np.arange(worlds), np.full(worlds, step)], 1).astype(np.float32),
            action=np.zeros((worlds, 1), np.float32),
            achieved_goal=np.full((worlds, 1), step, np.float32),
            episode_start=np.full(worlds, step % 20 == 0),
        )
    batch = buffer.sample(1000, gamma=0.9)
    moment, goal = batch.observation[:, 1], batch.goal[:, 0]
    assert (goal - moment == batch.offset).all(), "a goal is not offset steps ahead"
    assert (goal // 20 == moment // 20).all(), "a goal of another trajectory"
    assert batch.offset.min() >= 1
    with tempfile.TemporaryDirectory() as directory:
        buffer.save(Path(directory) / "buffer.crlb")
        again = crl.TrajectoryBuffer.load(Path(directory) / "buffer.crlb")
    np.testing.assert_array_equal(again.sample(1000, gamma=0.9).goal, buffer.sample(1000, gamma=0.9).goal)
    assert "torch" not in sys.modules, "the buffer imported torch"
    print(f"OK crl {importlib.metadata.version('crl')} from {Path(crl.__file__).parent}")


if __name__ == "__main__":
    main()
