"""How far a run's ants get: goals at fifths of the way to its own. `python docs/results/ant_by_distance.py RUN...`

32 ants for each distance, one episode each by the mode of the policy; an ant that falls over is out. Where too few come
to 10 m for a comparison, these still tell which has learnt more.
"""

import sys
from pathlib import Path

import numpy as np

from crl import envs, run

SHARES, EACH, STEPS, SEED, NEAR = (0.2, 0.4, 0.6, 0.8, 1.0), 32, 1000, 11, 0.5


def score(directory):
    """By share: whether each ant came within NEAR m of its goal, its least distance, and its steps that near."""
    newest = max((directory / "checkpoints").iterdir(), key=lambda path: int(path.name.split("_")[1]))
    agent = run.load_agent(newest, run.reopen(directory, {}))
    share = np.repeat(SHARES, EACH)[:, None]
    env = envs.make("ant", len(share), seed=SEED)
    shown, _ = env.reset(seed=SEED)
    up, steps, least = np.ones(len(share), bool), np.zeros(len(share)), np.full(len(share), np.inf)
    for _ in range(STEPS - 1):
        goal = (share * shown["desired_goal"]).astype(np.float32)
        action = agent.act(shown["observation"], goal, deterministic=True)
        shown, _, terminated, truncated, _ = env.step(action.numpy())
        up &= ~(terminated | truncated)
        distance = np.linalg.norm(shown["achieved_goal"] - goal, axis=1)
        least = np.where(up, np.minimum(least, distance), least)
        steps += up & (distance < NEAR)
    return (x.reshape(len(SHARES), EACH) for x in (least < NEAR, least, steps))


def main():
    """A row for each run."""
    distances = [f"{10 * share:g} m" for share in SHARES]
    print("| run |", " | ".join(distances), "| all | nearest, m | time_at_goal |")
    for name in sys.argv[1:]:
        reached, least, steps = score(Path(name))
        each = " | ".join(f"{x:.2f}" for x in reached.mean(1))
        print(f"| {name} | {each} | {reached.mean():.3f} | {least.mean():.2f} | {steps.mean():.0f} |")


if __name__ == "__main__":
    main()
