"""The same study with networks: φ(s, a) and ψ(g) of one-hot rows and columns, a softmax policy over the five moves.

Letters: K seeds, S states, R entries of a representation, B pairs of an update, D inputs.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from crl import losses
from crl.adam import Adam
from crl.buffer import TrajectoryBuffer
from crl.lab.rooms import MOVES, World
from crl.lab.study import GAMMA, HORIZON, KEPT, LOSSES, PAIRS, ROUND, Floats, Ints, Settings
from crl.networks import ReluMLP

WIDTH, DEPTH, LEARNING_RATE = 256, 2, 3e-4
"""Single-goal CRL's networks and Adam's step (Liu et al. 2024)."""
SPREAD = 0.08
"""How far outputs begin from a common unit vector: as far as a table of 16 entries does."""


class Networks:
    """A pair of encoders a seed. The energy of a move is the cosine of φ(s, a) and ψ(g); nothing knows the world.

    A state is two one-hot vectors, of its row and its column; a move is a third. The loss is InfoNCE of cosines, as in
    `crl.losses`; pairs are drawn by `crl.TrajectoryBuffer` from as many episodes as a table keeps.
    """

    def __init__(self, world: World, settings: Settings, generators: list[np.random.Generator]) -> None:
        self._world, self._settings = world, settings
        height, width = world.grid.shape
        row, column = torch.from_numpy(world.cells).T
        states = torch.cat((torch.eye(height)[row], torch.eye(width)[column]), 1)
        moves = torch.eye(len(MOVES))
        self._states = states
        self._pairs = torch.cat((states.repeat_interleave(len(moves), 0), moves.repeat(len(states), 1)), 1)
        self._seeds = [_Seed(self._states, self._pairs, settings, generator) for generator in generators]

    @torch.no_grad()
    def psi(self) -> Floats:
        return np.stack([_unit(seed.psi(self._states)).numpy() for seed in self._seeds])

    def command(self) -> Floats:
        return np.stack([self._commanded(seed).numpy() for seed in self._seeds])

    @torch.no_grad()
    def energies(self) -> Floats:
        found = [_unit(seed.phi(self._pairs)) @ self._commanded(seed) for seed in self._seeds]
        return np.stack([energies.view(len(self._states), len(MOVES)).numpy() for energies in found])

    @torch.no_grad()
    def _commanded(self, seed: _Seed) -> Tensor:
        if self._settings.goal_command == "random-vector":
            return seed.vector
        goal: Tensor = seed.psi(self._states[self._world.goal])
        return _unit(goal)

    def update(self, states: Ints, moves: Ints, generators: list[np.random.Generator]) -> None:
        kind = LOSSES[self._settings.loss]
        for seed, its_states, its_moves in zip(self._seeds, states, moves, strict=True):
            batch = seed.buffer_with(its_states, its_moves).sample(PAIRS, gamma=GAMMA)
            pair = batch.observation.astype(np.int64) * len(MOVES) + batch.action
            phi, psi = seed.phi(self._pairs[pair]), seed.psi(self._states[batch.goal.astype(np.int64)])
            seed.adam.zero_grad()
            losses.contrastive_loss(losses.pairwise_energy(phi, psi, "cosine"), kind).backward()  # type: ignore[no-untyped-call]
            seed.adam.step()


class _Seed:
    """Encoders, optimizer and buffer of one seed."""

    def __init__(self, states: Tensor, pairs: Tensor, settings: Settings, generator: np.random.Generator) -> None:
        seeds = torch.Generator().manual_seed(int(generator.integers(2**62)))
        r = settings.dimension
        self.vector = _unit(torch.randn(r, generator=seeds))
        self.phi, self.psi = (ReluMLP(len(x[0]), r, WIDTH, DEPTH, generator=seeds) for x in (pairs, states))
        for encoder, inputs in ((self.phi, pairs), (self.psi, states)):
            begin(encoder, inputs, self.vector if settings.init == "symmetric" else None)
        parameters = nn.ModuleDict({"phi": self.phi, "psi": self.psi}).named_parameters()
        self.adam = Adam(dict(parameters), LEARNING_RATE)
        rows = KEPT * (HORIZON + 1)
        row = ((), "int32")
        self._buffer = TrajectoryBuffer(ROUND, rows, row, row, None, seed=int(generator.integers(2**62)))

    def buffer_with(self, states: Ints, moves: Ints) -> TrajectoryBuffer:
        """The buffer, once a round's states (ROUND, T + 1) and moves (ROUND, T) are in it."""
        start = np.zeros((HORIZON + 1, ROUND), np.bool_)
        start[0] = True
        last = np.zeros((1, ROUND), np.int32)  # no pair begins with the last state of an episode
        self._buffer.add_rollout(
            observation=states.T.astype(np.int32),
            action=np.concatenate((moves.T.astype(np.int32), last)),
            episode_start=start,
        )
        return self._buffer


@torch.no_grad()
def begin(encoder: ReluMLP, inputs: Tensor, vector: Tensor | None) -> None:
    """Move an encoder's last layer so that its outputs for `inputs`, (n, D), are centred at `vector`, (R,), or at 0.

    About a vector they lie `SPREAD` away from it, in the root mean square; about 0 as far as they were from their mean.
    """
    last, outputs = encoder.output, encoder(inputs)
    mean = outputs.mean(0)
    away = outputs - mean
    last.bias.sub_(mean)
    if vector is not None:
        scale = SPREAD / away.square().sum(1).mean().sqrt()
        last.weight *= scale
        last.bias.copy_(last.bias * scale + vector)


def _unit(x: Tensor) -> Tensor:
    """Rows at length 1."""
    return nn.functional.normalize(x, dim=-1)
