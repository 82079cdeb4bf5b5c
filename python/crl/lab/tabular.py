"""Single-goal contrastive RL without networks: a table of unit vectors (Bastankhah et al. 2025, arXiv 2510.14129).

Letters: K seeds, S states, T steps of an episode, R entries of a representation, B pairs of an update.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from crl.lab.rooms import World
from crl.lab.study import GAMMA, HORIZON, KEPT, PAIRS, Floats, Ints, Settings

LEARNING_RATE = 1e-3
"""Of the sum, not the mean, of the pairs' losses."""
FAR_SPREAD, STEEPNESS = 5.0, 100
"""In units of 0.1 a dimension: how far from ψ(g) states far away begin, by distance."""


class Table:
    """One table ψ a seed: a row a state, anchor and goal at once, of length 1 always.

    The energy of a move is ψ(s')·ψ(g), s' being where the move leads: the policy knows the world's moves.
    """

    def __init__(self, world: World, settings: Settings, generators: list[np.random.Generator]) -> None:
        self._world, self._settings, self._forced = world, settings, settings.forced_c
        self._goals = [world.goal] if (second := settings.second) is None else [world.goal, second]
        begun = [initial(world, settings, generator) for generator in generators]
        self._psi = np.stack([table for table, _ in begun])
        self._vector = np.stack([vector for _, vector in begun])
        self._episodes = np.zeros((len(generators), KEPT, HORIZON + 1), np.int16)
        self._count = 0

    def psi(self) -> Floats:
        return self._psi

    def command(self) -> Floats:
        served = self._served()
        return served if len(self._goals) == 1 else served / np.linalg.norm(served, axis=-1, keepdims=True)

    def energies(self) -> Floats:
        c = (self._psi @ self._served()[..., None])[..., 0]
        for room, value in self._forced.items():
            c[:, self._world.room == room] = value
        return c[:, self._world.next_state]

    def _served(self) -> Floats:
        """(K, R) what moves are to serve: of two goals the mean, which is shorter than 1."""
        if self._settings.goal_command != "single":
            return self._vector
        served: Floats = self._psi[:, self._goals].mean(1)
        return served

    def update(self, states: Ints, moves: Ints, generators: list[np.random.Generator]) -> None:
        last = self._count + states.shape[1]
        self._episodes[:, np.arange(self._count, last) % KEPT] = states
        self._count = last
        anchor, future = draw_pairs(self._episodes[:, : min(last, KEPT)], generators)
        self._psi = self._psi + LEARNING_RATE * descent(self._psi, anchor, future, self._settings.loss)
        self._psi /= np.linalg.norm(self._psi, axis=-1, keepdims=True)
        if self._settings.goal_command == "redrawn-vector":
            drawn = np.stack([generator.standard_normal(self._settings.dimension) for generator in generators])
            self._vector = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def initial(world: World, settings: Settings, generator: np.random.Generator) -> tuple[Floats, Floats]:
    """A table (S, R) of unit rows, and the vector (R,) that states begin near: ψ(g), or a random one where commanded.

    `symmetric`: that vector of length 1, plus noise of standard deviation 0.1 * spread in each entry; `distance`: more
    noise the further from the goal, spread + (5 - spread) (d / d_max)^100, d straight through walls; `random`: noise
    alone. In rooms that are to be orthogonal, what noise is left at right angles to the vector.
    """
    vector = generator.standard_normal(settings.dimension)
    vector /= np.linalg.norm(vector)
    table = generator.standard_normal((len(world.cells), settings.dimension))
    if settings.init != "random":
        distance = np.linalg.norm(world.cells - world.cells[world.goal], axis=1)
        far = (distance / np.hypot(*np.subtract(world.grid.shape, 1))) ** STEEPNESS
        spread = settings.spread + (FAR_SPREAD - settings.spread) * (far if settings.init == "distance" else 0 * far)
        table = vector + 0.1 * spread[:, None] * table
    aside = np.isin(world.room, settings.orthogonal_rooms)
    table[aside] -= np.outer(table[aside] @ vector, vector)
    if settings.goal_command == "single":
        table[world.goal] = vector
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    return table.astype(np.float32), vector.astype(np.float32)


def draw_pairs(episodes: NDArray[np.int16], generators: list[np.random.Generator]) -> tuple[Ints, Ints]:
    """Anchors and later states (K, B): of a random episode, a random step, and k steps on, P(k) ∝ GAMMA^k.

    Args:
        episodes: states (K, kept, T + 1), each episode as likely.
    """
    seeds, kept, length = episodes.shape
    u = np.stack([generator.random((3, PAIRS)) for generator in generators], 1)  # (3, K, B)
    chosen = np.arange(seeds)[:, None], (u[0] * kept).astype(np.int64)
    step = (u[1] * (length - 1)).astype(np.int64)
    most = length - 1 - step
    ahead = 1 + np.floor(np.log1p(-u[2] * (1 - GAMMA**most)) / np.log(GAMMA)).astype(np.int64)
    later = step + np.minimum(ahead, most)
    return episodes[*chosen, step].astype(np.int64), episodes[*chosen, later].astype(np.int64)


def descent(psi: Floats, anchor: Ints, future: Ints, loss: str) -> Floats:
    """Minus the gradient of summed InfoNCE in ψ, as if rows were free: (K, S, R), from pairs (K, B).

    The logits are ψ(s_j)·ψ(s'_k), pairs on the diagonal. With P their softmax over anchors j (`backward`), over later
    states k (`forward`) or the mean of both, Δψ(s_j) = Σ_k (I - P)_jk ψ(s'_k) and Δψ(s'_k) = Σ_j (I - P)_jk ψ(s_j).
    """
    # (K, B, S): states as one-hot rows, so that gathering and its transpose, summing by state, are matrix products.
    at_anchor, at_future = (np.eye(psi.shape[1], dtype=np.float32)[states] for states in (anchor, future))
    a, f = at_anchor @ psi, at_future @ psi
    weight = np.exp(a @ f.mT)  # of cosines, so it cannot overflow
    axes = {"backward": (1,), "forward": (2,), "both": (1, 2)}[loss]
    softmax = sum(weight / weight.sum(axis, keepdims=True) for axis in axes) / np.float32(len(axes))
    ahead = np.eye(PAIRS, dtype=np.float32) - softmax
    step: Floats = at_anchor.mT @ (ahead @ f) + at_future.mT @ (ahead.mT @ a)
    return step
