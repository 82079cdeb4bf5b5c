"""SAC with hindsight goals in one file, PyTorch and Gymnasium: `python examples/sac_her.py`."""

import gymnasium
import numpy as np
import torch
from plane import Plane, reached
from torch import nn

import crl

NUM_ENVS, BATCH, GAMMA, TAU = 8, 256, 0.9, 0.02


def mlp(inputs, outputs):
    return nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, outputs))


class Actor(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = mlp(2 + 2, 2 * 2)

    def forward(self, observation, goal):
        """[B, 2], [B, 2] -> action [B, 2] in (-1, 1), log-probability [B]."""
        mean, log_std = self.net(torch.cat((observation, goal), -1)).chunk(2, -1)
        normal = torch.distributions.Normal(mean, log_std.clamp(-5, 1).exp())
        x = normal.rsample()
        log_prob = normal.log_prob(x) - 2 * (np.log(2) - x - nn.functional.softplus(-2 * x))
        return x.tanh(), log_prob.sum(-1)


def main(steps=700, seed=0):
    """Train for `steps` steps of all environments; the share of the last 100 steps' episodes that end at the goal."""
    torch.manual_seed(seed)
    envs = gymnasium.vector.SyncVectorEnv([Plane] * NUM_ENVS)
    buffer = crl.TrajectoryBuffer(NUM_ENVS, 100_000, observation=(2,), action=(2,), achieved_goal=(2,), seed=seed)
    actor, critics, targets = Actor(), [mlp(6, 1) for _ in range(2)], [mlp(6, 1) for _ in range(2)]
    for critic, target in zip(critics, targets, strict=True):
        target.load_state_dict(critic.state_dict())
    log_alpha = torch.tensor(-3.0, requires_grad=True)
    critic_optimizer = torch.optim.Adam([p for critic in critics for p in critic.parameters()], 1e-3)
    actor_optimizer = torch.optim.Adam(actor.parameters(), 1e-3)
    alpha_optimizer = torch.optim.Adam([log_alpha], 3e-3)

    def values(nets, *inputs):
        x = torch.cat(inputs, -1)
        return torch.stack([net(x)[:, 0] for net in nets])

    def update(batch):
        observation, action, goal = batch.observation, batch.action, batch.goal
        alpha = log_alpha.exp().detach()
        with torch.no_grad():
            reward = torch.from_numpy(reached(batch.next_achieved_goal.numpy(), goal.numpy())).float() - 1
            next_action, log_prob = actor(batch.next_observation, goal)
            following = values(targets, batch.next_observation, next_action, goal).min(0).values
            target = reward + GAMMA * (following - alpha * log_prob)
        critic_optimizer.zero_grad()
        (values(critics, observation, action, goal) - target).square().mean().backward()
        critic_optimizer.step()

        own, log_prob = actor(observation, goal)
        actor_optimizer.zero_grad()
        (alpha * log_prob - values(critics, observation, own, goal).min(0).values).mean().backward()
        actor_optimizer.step()
        alpha_optimizer.zero_grad()
        (-log_alpha * (log_prob.detach().mean() - 2)).backward()
        alpha_optimizer.step()
        with torch.no_grad():
            for critic, target_net in zip(critics, targets, strict=True):
                for p, q in zip(critic.parameters(), target_net.parameters(), strict=True):
                    q.lerp_(p, TAU)

    batches = iter(
        buffer.loader(BATCH, goal={"uniform": 0.8, "random": 0.2}, columns=("next_observation", "next_achieved_goal"))
    )
    shown, _ = envs.reset(seed=seed)
    first, ended = np.ones(NUM_ENVS, bool), np.zeros(NUM_ENVS, bool)
    successes = []
    for step in range(steps):
        with torch.no_grad():
            action, _ = actor(*(torch.from_numpy(shown[key]) for key in ("observation", "desired_goal")))
        row = {"observation": shown["observation"], "achieved_goal": shown["achieved_goal"], "action": action.numpy()}
        buffer.add(**row, episode_start=first)
        shown, _, terminated, truncated, _ = envs.step(action.numpy())
        # Gymnasium resets in the step after the last: what that step was given is the row that nothing follows.
        first, ended = ended, terminated | truncated
        if step >= steps - 100:
            successes += list(reached(shown["achieved_goal"], shown["desired_goal"])[ended])
        if step >= 25:
            update(next(batches))
    envs.close()
    return float(np.mean(successes))


if __name__ == "__main__":
    print(f"episodes that end at the goal: {main():.0%}")
