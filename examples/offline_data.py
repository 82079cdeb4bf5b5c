"""Offline data sets in the buffer: OGBench's files and other npz archives, and Minari's data sets.

python examples/offline_data.py antmaze-medium-navigate-v0.npz
"""

import sys

import numpy as np

import crl


def from_npz(path, goal=slice(None), seed=0):
    """A buffer with the trajectories of a file of OGBench: observations, actions and terminals, each [rows, ...].

    Terminals mark the last row of each trajectory, which holds the final observation. `goal` selects the entries of an
    observation that are a goal: `slice(2)` for the mazes, all of them by default.
    """
    with np.load(path) as file:
        observation, action, terminal = (file[name] for name in ("observations", "actions", "terminals"))
    start = np.concatenate(([True], terminal[:-1] > 0))
    return _filled(observation, action, observation[:, goal], start, seed)


def from_minari(dataset, seed=0):
    """A buffer with the episodes of a Minari data set of a goal environment, observations a dict."""
    columns, starts = [], []
    for episode in dataset.iterate_episodes():
        shown, action = episode.observations, episode.actions
        action = np.concatenate((action, np.zeros_like(action[:1])))  # Nothing is done there any more.
        columns.append((shown["observation"], action, shown["achieved_goal"]))
        starts.append(np.arange(len(action)) == 0)
    return _filled(*map(np.concatenate, zip(*columns, strict=True)), np.concatenate(starts), seed)


def _filled(observation, action, goal, start, seed):
    """One environment that lived through all trajectories, one after the other."""
    buffer = crl.TrajectoryBuffer(
        num_envs=1,
        capacity=len(start),
        observation=(observation.shape[1:], observation.dtype),
        action=(action.shape[1:], action.dtype),
        achieved_goal=(goal.shape[1:], goal.dtype),
        seed=seed,
    )
    rows = {"observation": observation, "action": action, "achieved_goal": goal, "episode_start": start}
    buffer.add_rollout(**{name: column[:, None] for name, column in rows.items()})
    return buffer


if __name__ == "__main__":
    print(from_npz(sys.argv[1], slice(2)))
