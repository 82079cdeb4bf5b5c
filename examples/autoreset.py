"""The same rows from each of Gymnasium's three autoreset modes: `python examples/autoreset.py`."""

import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from plane import Plane

import crl


def collect(envs, buffer, act, steps, seed=None):
    """Adds what `steps` steps show of a vector environment with goals, in whichever mode it resets."""
    mode, keys = envs.metadata["autoreset_mode"], ("observation", "achieved_goal")
    shown, _ = envs.reset(seed=seed)
    first, ended = np.ones(envs.num_envs, bool), np.zeros(envs.num_envs, bool)
    for _ in range(steps):
        action = act(shown["observation"])
        buffer.add(**{key: shown[key] for key in keys}, action=action, episode_start=first)
        shown, _, terminated, truncated, info = envs.step(action)
        if mode == AutoresetMode.NEXT_STEP:
            # What is shown is final where an episode has ended, and the first of the next where one had before.
            first, ended = ended, terminated | truncated
            continue
        first = terminated | truncated
        for i in np.flatnonzero(first):
            same_step = mode == AutoresetMode.SAME_STEP
            final = info["final_obs"][i] if same_step else {key: shown[key][i] for key in keys}
            with buffer.writer(i, i + 1) as writer:
                writer.add(**{key: final[key][None] for key in keys}, action=action[i : i + 1], episode_start=[False])
        if mode == AutoresetMode.DISABLED and first.any():
            shown, _ = envs.reset(options={"reset_mask": first})


def main():
    """A buffer for each mode, of 4 environments and 3 episodes of 21 rows."""
    buffers = {}
    for mode in AutoresetMode:
        envs = SyncVectorEnv([Plane] * 4, autoreset_mode=mode)
        buffers[mode] = crl.TrajectoryBuffer(4, 1000, observation=(2,), action=(2,), achieved_goal=(2,))
        rng = np.random.default_rng(0)
        steps = 3 * (21 if mode == AutoresetMode.NEXT_STEP else 20)
        collect(envs, buffers[mode], lambda shown, rng=rng: rng.uniform(-1, 1, shown.shape), steps, seed=0)
    return buffers


if __name__ == "__main__":
    for mode, buffer in main().items():
        print(f"{mode.value}: {buffer}")
