"""Whether the way to a goal can be read from representations by a line: ridge regression on held-out states.

Letters: G goals, P places, F features.
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
PENALTIES = np.logspace(-4, 4, 17)
HELD_OUT = {"places": "single places, a fifth at a time", "cells": "whole cells of the maze, one at a time"}

PLAIN = "observation and action"


@dataclass(frozen=True)
class Probe:
    """How well a line through features says the shortest path, over goals; intervals resample goals."""

    features: str
    held_out: str
    """A key of `HELD_OUT`."""
    width: int
    """Entries of a feature vector."""
    r2: Estimate
    """1 - (squared errors) / (squared deviations from the mean), of all held-out places of a goal"""
    spearman: Estimate
    per_goal: tuple[Floats, Floats]
    """(G,) r2 and Spearman's correlation"""


def predict(features: Floats, target: Floats, folds: NDArray[np.intp]) -> Floats:
    """What is predicted of each place (P,), from features (P, F) and targets (P,) of all other folds (P,).

    Standardised features, ridge regression; the penalty by leave-one-out of the places that are fitted.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    found = np.empty(len(target))
    for fold in np.unique(folds):
        held = folds == fold
        line = make_pipeline(StandardScaler(), RidgeCV(PENALTIES))
        found[held] = line.fit(features[~held], target[~held]).predict(features[held])
    return found


def r2(predicted: Floats, target: Floats) -> Floats:
    """The coefficient of determination along the last axis, (..., P), (..., P) -> (...)."""
    error = ((predicted - target) ** 2).sum(-1)
    found: Floats = 1 - error / ((target - target.mean(-1, keepdims=True)) ** 2).sum(-1)
    return found


def measure(ground: Ground, goals: Floats, subjects: Sequence[Subject], fresh: int, seed: int = 0) -> list[Probe]:
    """Probes of every subject, of the same networks with fresh weights, and of the plain observation and action.

    For each goal a line of its own, of the features of every place and a uniformly random action, the same for all: an
    action of the policy would itself tell the way.

    Args:
        goals: (G, 2), m.
        fresh: how often weights are drawn anew; their predictions are judged one by one, and averaged.
    """
    path = geodesics.distances(ground.maze, goals, ground.places)
    count, commanded = len(ground.places), ground.goals(goals)
    folds = {
        "places": np.random.default_rng(seed).permutation(count) % 5,
        "cells": correlations.blocks_of(ground.places + 0.5 * ground.maze.cell, ground.maze.cell),
    }
    asked = [np.tile(goal, (count, 1)) for goal in commanded]
    action = np.random.default_rng(seed).uniform(-1, 1, (count, subjects[0].spec.action_dim)).astype(np.float32)
    plain = np.hstack((ground.observation, action)).astype(np.float64)
    sources = {PLAIN: [[plain] * len(goals)]}
    for subject in subjects:
        fresh_ones = [subject.untrained(10_000 + k) for k in range(fresh)]
        for name, readers in {subject.label: [subject], f"{subject.label}, untrained": fresh_ones}.items():
            sources[name] = [[r.features(ground.observation, goal, action) for goal in asked] for r in readers]
    probes = [
        _judge(name, kind, features, path, fold)
        for name, features in sources.items()
        if features and not (name == PLAIN and ground.task.spec.image)
        for kind, fold in folds.items()
    ]
    return probes


def margins(probes: Sequence[Probe]) -> dict[tuple[str, str], tuple[Estimate, Estimate]]:
    """By how much r2 and Spearman of trained weights are above those of untrained ones, goals in pairs.

    By features and `held_out`, of those whose untrained ones are there too.
    """
    known = {(probe.features, probe.held_out): probe.per_goal for probe in probes}
    found = {}
    for (name, kind), (r2, ranks) in known.items():
        if fresh := known.get((f"{name}, untrained", kind)):
            found[name, kind] = correlations.mean(r2 - fresh[0]), correlations.mean(ranks - fresh[1])
    return found


def _judge(name: str, kind: str, features: list[list[Floats]], path: Floats, folds: NDArray[np.intp]) -> Probe:
    """Of features (P, F) of each reader and goal."""
    told = np.stack(
        [
            [predict(of_goal, target, folds) for of_goal, target in zip(of_reader, path, strict=True)]
            for of_reader in features
        ]
    )
    per_goal = r2(told, path).mean(0)
    ranks = correlations.spearman(told, path).mean(0)
    width = features[0][0].shape[1]
    return Probe(name, kind, width, correlations.mean(per_goal), correlations.mean(ranks), (per_goal, ranks))
