"""Analyses of several runs in one world, each by its name: what is measured, drawn and written down."""

import csv
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crl.analysis import (
    correlations,
    embedding,
    geodesics,
    gradients,
    pictures,
    probe,
    reachability,
    similarity,
    spectra,
)
from crl.analysis.states import Ground, Walk, ground, walk
from crl.analysis.subject import Subject
from crl.errors import ConfigError
from crl.files import whole

Floats = NDArray[np.float64]
Table = list[dict[str, Any]]
WORLDS = 32
MOST_GOALS, SHOWN_GOALS = 12, 4
ROWS = 2048
SHEET = 900
"""Rows of an episode that t-SNE shows: 30 by 30 on the grid."""
GRADIENT_GOALS, GRADIENT_STATES = 6, 8
FRESH = 3
"""How often the weights of untrained networks are drawn."""


@dataclass
class Section:
    """What one analysis found."""

    title: str
    text: str
    pictures: list[Path] = field(default_factory=list)
    table: Table = field(default_factory=list)
    """The main numbers, all rows of one shape."""


class Skipped(Exception):
    """This analysis has nothing to say here; the message says why, in one line."""


class Study:
    """Some trained agents in one world, and what the analyses look at there.

    Args:
        subjects: of one environment, under labels of their own.
        env: a `crl.envs` vector environment.
        goals: (n, 2) x and y, m, of a maze; None for the centres of its free cells.
        output: an existing directory.
        seed: of starts, goals and everything drawn.
    Raises:
        ConfigError: goals where there is no maze, or in a wall.
    """

    def __init__(self, subjects: Sequence[Subject], env: Any, goals: Floats | None, output: Path, seed: int) -> None:
        self.subjects, self.env, self.output, self.seed = list(subjects), env, output, seed
        env.reset(seed=seed)
        self.ground: Ground | None = ground(env)
        self.goals: Floats = np.empty((0, 2)) if goals is None else goals
        if self.ground is None:
            if goals is not None:
                raise ConfigError("--goal: there is no maze here whose places could be goals; leave it out.")
        elif goals is not None:
            self.ground.check(goals)
        else:
            maze = self.ground.maze
            cells = np.argwhere(maze.grid != "#")
            self.goals = cells[_evenly(len(cells), MOST_GOALS)].astype(np.float64) * maze.cell

    @cached_property
    def walks(self) -> list[Walk]:
        """Of every subject, rows of fresh episodes."""
        return [walk(subject, self.env, self.seed) for subject in self.subjects]

    def maze(self) -> Ground:
        """The ground, or Skipped."""
        if self.ground is None:
            raise Skipped("there is no maze here in which the robot is to be somewhere")
        return self.ground

    def goal_names(self, numbers: Sequence[int]) -> list[str]:
        """Goals as x, y in m."""
        return [f"({self.goals[n, 0]:g}, {self.goals[n, 1]:g})" for n in numbers]

    def write(self, name: str, rows: Iterable[dict[str, Any]]) -> None:
        """A table as NAME.csv in the output."""
        rows = list(rows)
        with whole(self.output / f"{name}.csv") as place, place.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def maps(study: Study) -> Section:
    """Values over the maze beside distances."""
    ground = study.maze()
    found = reachability.measure(ground, study.goals, study.subjects)
    if not found.values:
        raise Skipped("none of the runs has a critic")
    shown = _evenly(len(study.goals), SHOWN_GOALS)
    picture = study.output / "maps.png"
    per_goal = found.correlations()
    pictures.draw_maps(found, per_goal, shown, picture)
    study.write(
        "maps",
        (
            {"goal_x": goal[0], "goal_y": goal[1], "x": x, "y": y, "path": found.path[g, p]}
            | {name: order[g, p] for name, order in found.orders.items()}
            for g, goal in enumerate(study.goals.round(4).tolist())
            for p, (x, y) in enumerate(ground.places.round(4).tolist())
        ),
    )
    rows = [
        {"goal_x": x, "goal_y": y, "order": name, **_told("spearman", estimates[number])}
        for number, (x, y) in enumerate(study.goals.tolist())
        for name, estimates in per_goal.items()
    ]
    study.write("correlations", rows)
    beyond, hidden = found.beyond_euclidean(), found.out_of_sight()
    table = [
        {
            "order": name,
            **_told("spearman", estimate),
            "lowest": min(e.value for e in per_goal[name]),
            "highest": max(e.value for e in per_goal[name]),
            **_told("above_euclidean", beyond.get(name)),
            **_told("out_of_sight", hidden.get(name)),
        }
        for name, estimate in found.over_goals().items()
    ]
    text = (
        f"For each of {len(study.goals)} goals, at {len(ground.places)} places {ground.spacing:g} m apart: how far the "
        "place is by the shortest path around the walls, in a straight line, and by what the critic says of the "
        "action that the policy takes there, at rest, for that goal. Spearman's rank correlation with the shortest "
        "path, mean over goals; out of sight: of places alone from which a wall hides the goal; intervals (95 %) "
        "resample goals, those of single goals in correlations.csv quarters of the maze's cells."
    )
    return Section("Reachability", text, [picture], table)


def splits(study: Study) -> Section:
    """psi along a goal's and across."""
    chosen = [subject for subject in study.subjects if subject.has_representations]
    if not chosen:
        raise Skipped("none of the runs has a psi(g)")
    ground, numbers = study.ground, _evenly(len(study.goals), SHOWN_GOALS)
    names = study.goal_names(numbers)
    found: dict[str, list[similarity.Split]] = {}
    table: Table = []
    for subject in chosen:
        if ground is not None:
            achieved, commanded = ground.goals(ground.places), ground.goals(study.goals[numbers])
        else:
            some = study.walks[study.subjects.index(subject)].some(ROWS, study.seed)
            achieved, commanded = some.achieved, np.unique(some.goal, axis=0)[:SHOWN_GOALS]
            names = [str(goal + 1) for goal in range(len(commanded))]
        psi, of_goals = similarity.seen(subject, achieved, commanded)
        found[subject.label] = [similarity.split(psi, goal) for goal in of_goals]
        table += [
            {
                "run": subject.label,
                "goal": name,
                "lowest_c": float(split.c.min()),
                "mean_c": float(split.c.mean()),
                "first_axis": float(split.explained[0]),
                "second_axis": float(split.explained[1]),
            }
            for name, split in zip(names, found[subject.label], strict=True)
        ]
    if ground is not None:
        path = geodesics.distances(ground.maze, study.goals[numbers], ground.places)
        every = (split for of_run in found.values() for split in of_run)
        for row, split, far in zip(table, every, itertools.cycle(path), strict=False):
            row["spearman_c_path"] = float(correlations.spearman(-split.c, far))
    picture = study.output / "similarity.png"
    pictures.draw_split(found, names, ground, study.goals[numbers] if ground else None, picture)
    study.write("similarity", table)
    text = (
        "With u the unit vector along ψ(goal), the unit vector along ψ of what a state achieves is c u + ζ: c is its "
        "similarity with the goal, ζ the rest, so c² + ‖ζ‖² = 1; ζ along its first two principal axes, with the "
        "shares they have of its squares. Where the energy is a distance, whose origin is nowhere, the mean over the "
        "states is the origin."
    )
    return Section("Similarity of goals", text, [picture], table)


def tsne(study: Study) -> Section:
    """Features of states along episodes, on a plane and on a grid."""
    section = Section(
        "t-SNE",
        f"Up to {SHEET} states of fresh episodes until their goals are reached, by the features of state and action: "
        "t-SNE, and the same points moved onto a grid by the linear assignment that moves them least. Grey: the goal "
        "was not reached in that episode.",
    )
    rows: Table = []
    for number, (subject, walked) in enumerate(zip(study.subjects, study.walks, strict=True)):
        some = walked.some(int(min(SHEET, len(walked.action)) ** 0.5) ** 2, study.seed)
        places = embedding.tsne(subject.features(some.observation, some.goal, some.action), study.seed)
        cells = embedding.rectified(places)
        colours = {"time until the goal is reached (s)": some.time_left}
        if study.ground is not None and not study.env.task.differs_by_world:
            colours = {
                "path from the start (m)": _paths(study.ground, some.place, study.ground.maze.centres("R")[:1]),
                "path to the goal (m)": _paths(study.ground, some.place, some.target),
            } | colours
        else:
            colours = {"distance to the goal": some.distance} | colours
        picture = study.output / f"tsne_{number + 1}.png"
        what = "φ(s, a)" if subject.has_representations else "what the last layer reads"
        pictures.draw_embedding(f"{what}: {subject.label}", places, cells, colours, picture)
        section.pictures.append(picture)
        for row in range(len(places)):
            at = {"run": subject.label, "tsne_1": places[row, 0], "tsne_2": places[row, 1], "cell": cells[row]}
            rows.append(at | {name: values[row] for name, values in colours.items()})
    study.write("tsne", rows)
    return section


def probes(study: Study) -> Section:
    """The shortest path from features by a line."""
    ground = study.maze()
    found = probe.measure(ground, study.goals, study.subjects, FRESH, study.seed)
    picture = study.output / "probe.png"
    pictures.draw_probes(found, picture)
    margins, none = probe.margins(found), (None, None)
    table = [
        {
            "features": p.features,
            "width": p.width,
            "held_out": p.held_out,
            **_told("r2", p.r2),
            **_told("r2_above_untrained", margins.get((p.features, p.held_out), none)[0]),
            **_told("spearman", p.spearman),
            **_told("spearman_above_untrained", margins.get((p.features, p.held_out), none)[1]),
        }
        for p in found
    ]
    study.write("probe", table)
    text = (
        f"Ridge regression of the shortest path's length from the features of a place, for each of {len(study.goals)} "
        "goals a line of its own; R² and Spearman of held-out places, mean over goals, intervals (95 %) resample "
        "goals. Features: φ(s, a) of crl; of other critics and models what their last layer reads. Untrained: the same "
        f"networks with fresh weights, {FRESH} times. All of the same random actions, as one of a policy would itself "
        "tell the way. Beyond the cells that were fitted a line extrapolates: R² may be far below 0 there."
    )
    return Section("Linear probe", text, [picture], table)


def cosines(study: Study) -> Section:
    """Angles between gradients of the critic."""
    chosen = [subject for subject in study.subjects if subject.has_critic]
    if not chosen:
        raise Skipped("none of the runs has a critic")
    ground = study.ground
    if ground is not None:
        numbers = _evenly(len(study.goals), GRADIENT_GOALS)
        names, goal = study.goal_names(numbers), ground.goals(study.goals[numbers])
        from_start = geodesics.distances(ground.maze, ground.maze.centres("R")[:1], ground.places)[0]
        nearest = np.argsort(from_start, kind="stable")
        observation = ground.observation[nearest[_evenly(len(nearest), GRADIENT_STATES)]]
    else:
        some = study.walks[0].some(ROWS, study.seed)
        goal = np.unique(some.goal, axis=0)[:GRADIENT_GOALS]
        names, observation = [str(number + 1) for number in range(len(goal))], some.observation[:GRADIENT_STATES]
    found: dict[str, Floats] = {}
    table: Table = []
    for subject in chosen:
        column = subject.agent.algorithm.numerics.column
        o = column(np.tile(observation, (len(goal), 1)))
        g = column(np.repeat(goal, len(observation), axis=0))
        found[subject.label] = gradients.cosines(subject, o, g, subject.action(o, g))
        table.append({"run": subject.label} | asdict(gradients.alignment(found[subject.label], len(goal))))
    picture = study.output / "gradients.png"
    pictures.draw_cosines(found, names, picture)
    study.write(
        "gradients",
        (
            {"run": label, "row": row, "column": column, "cosine": float(cosine[row, column])}
            for label, cosine in found.items()
            for row in range(len(cosine))
            for column in range(row)
        ),
    )
    text = (
        "Cosines between the gradients of the critic's value with respect to all of its weights, for every pair of a "
        f"goal and one of {len(observation)} states with the policy's action; in a maze states are in the order of "
        "their way from the start. Near 1: a step that raises one value raises the other. Table: means over pairs that "
        "share the goal alone, the state alone, or neither."
    )
    return Section("Gradients across goals and states", text, [picture], table)


def ranks(study: Study) -> Section:
    """Singular values of the representations."""
    lines: dict[str, dict[str, tuple[Floats, float]]] = {}
    table: Table = []
    for subject, walked in zip(study.subjects, study.walks, strict=True):
        some = walked.some(ROWS, study.seed)
        for reader in (subject, subject.untrained(10_000)):
            name = subject.label + (", untrained" if reader is not subject else "")
            told = {"φ(s, a), or what the last layer reads": reader.features(some.observation, some.goal, some.action)}
            if reader.has_representations:
                told["ψ(achieved goal)"] = reader.goal_features(some.achieved)
            for what, rows in told.items():
                values = spectra.singular_values(rows)
                rank = spectra.effective_rank(values)
                lines.setdefault(what, {})[name] = values, rank
                within = spectra.rank_within(values)
                numbers = {"width": rows.shape[1], "effective_rank": rank, "rank_99": within}
                table.append({"run": name, "of": what, **numbers})
    picture = study.output / "spectra.png"
    pictures.draw_spectra(lines, picture)
    study.write(
        "spectra",
        (
            {"run": name, "of": what, "number": number + 1, "singular_value": float(value)}
            for what, by_run in lines.items()
            for name, (values, _) in by_run.items()
            for number, value in enumerate(values)
        ),
    )
    text = (
        f"Singular values of up to {ROWS} representations of states along fresh episodes, less their mean. Effective "
        "rank: exp of the entropy of their shares (Roy & Vetterli 2007); rank_99: how many have 99 % of the sum (Kumar "
        "et al. 2021)."
    )
    return Section("Effective rank", text, [picture], table)


ANALYSES: dict[str, Callable[[Study], Section]] = {
    "maps": maps,
    "similarity": splits,
    "tsne": tsne,
    "probe": probes,
    "gradients": cosines,
    "spectra": ranks,
}


def _evenly(count: int, most: int) -> list[int]:
    """At most `most` numbers of 0..count - 1, evenly spaced, ends included."""
    return sorted({round(number) for number in np.linspace(0, count - 1, min(count, most)).tolist()})


def _paths(ground: Ground, places: Floats, goals: Floats) -> Floats:
    """(N,) m: the shortest path from each of places (N, ...) to its own of goals (N, ...), or to one of (1, ...)."""
    targets, number = np.unique(goals[:, :2], axis=0, return_inverse=True)
    found = geodesics.distances(ground.maze, targets.astype(np.float64), places[:, :2])
    paths: Floats = found[number.ravel() if len(goals) > 1 else 0, np.arange(len(places))]
    return np.where(np.isfinite(paths), paths, np.nan)


def _told(name: str, estimate: correlations.Estimate | None) -> dict[str, float | None]:
    """An estimate as three columns of a table; empty ones where there is none."""
    ends = (None, None, None) if estimate is None else (estimate.value, estimate.low, estimate.high)
    return dict(zip((name, f"{name} low", f"{name} high"), ends, strict=True))
