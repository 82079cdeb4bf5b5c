"""Trajectories from TorchRL's collectors: `python examples/torchrl_collection.py`."""

import numpy as np
from plane import Plane
from torchrl.collectors import Collector
from torchrl.envs import GymWrapper, InitTracker, SerialEnv, TransformedEnv

import crl

NUM_ENVS = 4


def add_collected(buffer, data):
    """Store what a collector yields: a tensordict [envs, steps] with `InitTracker`'s "is_init" in it.

    TorchRL keeps the observation after every step under "next", and the one after the last step only there. So each
    final observation is put in as a row of its own.
    """
    done = data["next", "done"][..., 0].numpy()
    columns = {name: data[name].numpy() for name in ("observation", "action", "achieved_goal")}
    final = {name: data["next", name].numpy() for name in ("observation", "achieved_goal")}
    final["action"] = columns["action"]  # Of a row that nothing follows: it is never drawn.
    start = data["is_init"][..., 0].numpy()
    for env in range(len(data)):
        last = np.flatnonzero(done[env])
        rows = {name: np.insert(x[env], last + 1, final[name][env, last], axis=0) for name, x in columns.items()}
        with buffer.writer(env, env + 1) as writer:
            writer.add_rollout(
                **{name: x[:, None] for name, x in rows.items()},
                episode_start=np.insert(start[env], last + 1, False)[:, None],
            )


def main(frames=2000):
    """A buffer with `frames` frames of random actions."""
    envs = TransformedEnv(SerialEnv(NUM_ENVS, lambda: GymWrapper(Plane())), InitTracker())
    buffer = crl.TrajectoryBuffer(NUM_ENVS, 100_000, observation=(2,), action=(2,), achieved_goal=(2,))
    collector = Collector(envs, None, frames_per_batch=NUM_ENVS * 50, total_frames=frames)
    for data in collector:
        add_collected(buffer, data)
    collector.shutdown()
    return buffer


if __name__ == "__main__":
    buffer = main()
    print(buffer, buffer.sample(256, gamma=0.9).goal.shape)
