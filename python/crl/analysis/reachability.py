"""What a critic says of every place in a maze for a goal, beside the distances to it.

Letters: G goals, P places, S subjects.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crl.analysis import correlations, geodesics
from crl.analysis.correlations import Estimate
from crl.analysis.states import Ground
from crl.analysis.subject import Subject

Floats = NDArray[np.float64]
EUCLIDEAN = "Euclidean distance"


@dataclass(frozen=True)
class Maps:
    """Over the places of `ground`, for each of `goals`."""

    ground: Ground
    goals: Floats
    """(G, 2) x and y, m"""
    path: Floats
    """(G, P) length of the shortest path, m"""
    euclidean: Floats
    """(G, P) m"""
    values: dict[str, Floats]
    """By subject what its critic says of the policy's own action for that goal, (G, P): higher is nearer."""

    @property
    def orders(self) -> dict[str, Floats]:
        """All that may order places as the path does, lower being nearer, (G, P) each."""
        return {EUCLIDEAN: self.euclidean, **{label: -values for label, values in self.values.items()}}

    def correlations(self) -> dict[str, list[Estimate]]:
        """Of each order and goal Spearman's correlation with the path; intervals resample quarters of cells."""
        cell = self.ground.maze.cell
        blocks = correlations.blocks_of(self.ground.places + 0.5 * cell, 0.5 * cell)
        return {name: correlations.block_spearman(order, self.path, blocks) for name, order in self.orders.items()}

    def over_goals(self) -> dict[str, Estimate]:
        """Of each order the mean correlation over goals; intervals resample goals."""
        return {name: correlations.mean(correlations.spearman(order, self.path)) for name, order in self.orders.items()}

    def out_of_sight(self) -> dict[str, Estimate]:
        """The same of those places alone from which a wall hides the goal; goals that hide from none do not count."""
        hidden = self.path > self.euclidean * (1 + 1e-6)
        goals = np.flatnonzero(hidden.sum(1) > 1)
        found = {
            name: np.array([correlations.spearman(order[g, hidden[g]], self.path[g, hidden[g]]) for g in goals])
            for name, order in self.orders.items()
        }
        return {name: correlations.mean(rho) for name, rho in found.items() if len(goals)}

    def beyond_euclidean(self) -> dict[str, Estimate]:
        """Of each subject by how much its mean correlation is above the Euclidean distance's, the goals in pairs."""
        found = {name: correlations.spearman(order, self.path) for name, order in self.orders.items()}
        return {name: correlations.mean(rho - found[EUCLIDEAN]) for name, rho in found.items() if name != EUCLIDEAN}


def measure(ground: Ground, goals: Floats, subjects: Sequence[Subject]) -> Maps:
    """The maps of those `subjects` that have a critic, for `goals` (G, 2), m."""
    euclidean = np.linalg.norm(ground.places[None] - goals[:, None], axis=-1)
    commanded, count = ground.goals(goals), len(ground.places)
    values = {
        subject.label: np.stack([subject.value(ground.observation, np.tile(goal, (count, 1))) for goal in commanded])
        for subject in subjects
        if subject.has_critic
    }
    return Maps(ground, goals, geodesics.distances(ground.maze, goals, ground.places), euclidean, values)
