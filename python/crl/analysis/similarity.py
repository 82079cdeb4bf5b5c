"""How goals look to each other: psi split into its part along a goal's and the rest.

With u = psi(g) / |psi(g)|, the unit vector v = psi(s) / |psi(s)| of what a state achieves is c u + zeta: c = u.v, the
similarity with the goal, and zeta, the rest, so that c^2 + |zeta|^2 = 1. Bastankhah et al. 2025 follow c and the first
principal axes of the rest while an agent explores.

Letters: N rows, R representation.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crl.analysis.subject import Subject
from crl.policy import Array

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Split:
    """psi of N achieved goals, seen from one goal."""

    c: Floats
    """(N,) cosine with psi of the goal"""
    zeta: Floats
    """(N, 2) the rest along its first two principal directions"""
    explained: Floats
    """(2,) of the rest's sum of squares, the shares that these have"""

    @property
    def rest(self) -> Floats:
        """(N,) the length of zeta, (1 - c^2)^1/2"""
        return np.sqrt(np.clip(1 - self.c**2, 0, None))


def split(psi: Floats, goal: Floats) -> Split:
    """Of rows (N, R) those parts along `goal` (R,) and across; zero vectors are taken as across."""
    unit = psi / _length(psi)
    axis = goal / _length(goal)
    c = unit @ axis
    rest = unit - c[:, None] * axis
    _, size, directions = np.linalg.svd(rest, full_matrices=False)
    energy = size**2 / max(float((size**2).sum()), np.finfo(float).tiny)
    return Split(c, rest @ directions[:2].T, energy[:2])


def seen(subject: Subject, achieved: Array, goals: Array) -> tuple[Floats, Floats]:
    """psi of what states achieve (N, G) and of goals (n, G): (N, R), (n, R), from the origin that the energy has.

    `dot` and `cosine` know the origin of the representations. `norm` and `l2` are of differences alone, and any other
    origin would do as well: the mean over the states is taken.
    """
    psi, of_goals = subject.goal_features(achieved), subject.goal_features(goals)
    origin = psi.mean(0) if subject.settings.energy in ("norm", "l2") else np.zeros(psi.shape[1])
    return psi - origin, of_goals - origin


def _length(rows: Floats) -> Floats:
    length: Floats = np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), np.finfo(float).tiny)
    return length
