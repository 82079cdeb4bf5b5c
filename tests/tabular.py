"""Small worlds whose discounted occupancies are known, and critics that are tables.

Letters: S states, A actions, X = S A pairs of them, C critics. Goals are states. The policy is uniform over actions.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

import crl
from crl import losses
from crl.bootstrap import NCE_WEIGHTS, c_learning_loss, importance_weights, num_next_goals

FOUR_ROOMS = (".....", "..#..", ".###.", "..#..", ".....")
LARGER_FOUR_ROOMS = ("...#...", ".......", "...#...", "#.###.#", "...#...", ".......", "...#...")


@dataclass
class World:
    """transition: (S, A, S), P(s' | s, a)."""

    transition: NDArray[np.float64]

    def occupancy(self, gamma: float) -> NDArray[np.float64]:
        """(X, S): p(g | s, a) = sum over k >= 1 of (1 - gamma) gamma^(k-1) P(s_k = g), the law of the buffer's goals.

        P_a P^(k-1) is where k steps lead, so it is (1 - gamma) P_a (I - gamma P)^-1.
        """
        num_states = len(self.transition)
        resolvent = np.linalg.inv(np.eye(num_states) - gamma * self.transition.mean(1))
        return (1 - gamma) * self.transition.reshape(-1, num_states) @ resolvent

    def stationary(self) -> NDArray[np.float64]:
        """(S,): where the policy is in the long run."""
        return np.linalg.matrix_power(self.transition.mean(1), 1000)[0]

    def log_ratio(self, gamma: float) -> NDArray[np.float64]:
        """(X, S): log p(g | s, a) / p(g), which the objectives estimate."""
        return np.log(self.occupancy(gamma) / self.stationary())

    def walk(self, num_envs: int, length: int, seed: int) -> crl.TrajectoryBuffer:
        """One trajectory in each of `num_envs` worlds, begun where the policy is in the long run."""
        generator = np.random.default_rng(seed)
        num_states, num_actions, _ = self.transition.shape
        actions = generator.integers(num_actions, size=(length, num_envs), dtype=np.int32)
        states = np.empty_like(actions)
        states[0] = generator.choice(num_states, num_envs, p=self.stationary())
        bounds = self.transition.cumsum(-1)[..., :-1]
        for t in range(length - 1):
            states[t + 1] = (generator.random((num_envs, 1)) >= bounds[states[t], actions[t]]).sum(1)
        row = ((), "int32")
        buffer = crl.TrajectoryBuffer(num_envs, num_envs * length, row, row, None, seed=seed)
        start = np.zeros((length, num_envs), bool)
        start[0] = True
        buffer.add_rollout(observation=states, action=actions, episode_start=start)
        return buffer


def ring(num_states: int) -> World:
    """A ring where one action steps on and the other, half as surely, back; else the state stays.

    The higher a state's number, the surer it is left: some are seen more often than others.
    """
    transition = np.zeros((num_states, 2, num_states))
    for s in range(num_states):
        for action, (step, chance) in enumerate(((1, 0.9), (-1, 0.45))):
            moves = chance * (s + 2) / (num_states + 1)
            transition[s, action, (s + step) % num_states] += moves
            transition[s, action, s] += 1 - moves
    return World(transition)


def rooms(grid: tuple[str, ...]) -> World:
    """Steps to the four sides, `#` being walls; a step into a wall or over the edge is none."""
    cells = [(i, j) for i, row in enumerate(grid) for j, cell in enumerate(row) if cell == "."]
    transition = np.zeros((len(cells), 4, len(cells)))
    for s, (i, j) in enumerate(cells):
        for action, (down, right) in enumerate(((1, 0), (-1, 0), (0, 1), (0, -1))):
            there = (i + down, j + right)
            transition[s, action, cells.index(there if there in cells else (i, j))] = 1
    return World(transition)


def learn(
    world: World,
    buffer: crl.TrajectoryBuffer,
    name: str,
    gamma: float,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    penalty: float = 0.0,
) -> NDArray[np.float64]:
    """The logits (X, S) of objective `name`, from batches of the buffer by gradient descent whose rate falls to 0.

    They start from offsets of rows and of columns as large as what there is to learn: what an objective leaves free
    stays wrong. Objectives that bootstrap have two critics, of which the mean is given, and an averaged target.
    """
    bootstraps = name in NCE_WEIGHTS
    num_states, num_actions, _ = world.transition.shape
    pairs = num_states * num_actions
    generator = torch.Generator().manual_seed(0)
    critics = 2 if bootstraps else 1
    offsets = torch.randn(critics, pairs + num_states, generator=generator)
    table = offsets[:, :pairs, None] + offsets[:, None, pairs:]
    target = table.clone()
    table.requires_grad_()
    # One cell of so many is met by a row, or of binary_nce by one of B^2 pairs, and what B rows say of it is 1 / B.
    scale = table.numel() * (batch_size if name == "binary_nce" else 1)
    columns = ("next_observation",) if bootstraps else ()
    one_hot = torch.eye(num_states)
    for step, batch in enumerate(buffer.loader(batch_size, gamma=gamma, columns=columns).take(steps)):
        goal = batch.goal.long()
        pair = batch.observation.long() * num_actions + batch.action
        if bootstraps:
            num_next = num_next_goals(batch_size, gamma, NCE_WEIGHTS[name])
            following = batch.next_observation.long()
            goal = torch.cat((following[:num_next], goal[num_next:]))
            negative = goal.roll(-1)
            next_pair = following * num_actions + torch.randint(num_actions, (batch_size,), generator=generator)
            weights = importance_weights(target[:, next_pair, negative])
            loss = c_learning_loss(table[:, pair, goal], table[:, pair, negative], weights, gamma, NCE_WEIGHTS[name])
        else:
            logits = table[0, pair] @ one_hot[goal].T  # (B, S) (S, B)
            loss = losses.contrastive_loss(logits, losses.contrastive_loss_of(name))
            loss = loss + penalty * losses.logsumexp_penalty(logits)
        (gradient,) = torch.autograd.grad(loss, table)
        with torch.no_grad():
            table -= (learning_rate * (1 - step / steps) * scale * gradient).clamp(-1, 1)
            target.lerp_(table, 0.05)
    return table.detach().mean(0).double().numpy()
