"""What a study says: when the goal was found, and each claim about how as a number with an interval over seeds.

Letters: K seeds, E episodes, S states, M moments kept, R entries of a representation.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crl.evaluation import wilson_interval
from crl.files import whole
from crl.lab.study import ROUND, Floats, Ints, Record

RATE = 0.02
"""Of the moving average of successes: about the last 50 episodes (Bastankhah et al. 2025)."""
HALF, FOUND = 0.5, 0.9
"""The goal is half found, and found, when that average first exceeds these."""
RESAMPLES = 10_000

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Statistic:
    """A number a seed, and what it means."""

    name: str
    values: Doubles
    """(K,), NaN where a seed has none: it never reached the goal, say."""
    meaning: str

    @property
    def known(self) -> Doubles:
        """(n,) the values that are."""
        return self.values[~np.isnan(self.values)]

    def interval(self) -> tuple[float, float, float]:
        """The mean over seeds and its 95 % interval, by the percentiles of a bootstrap; NaN of none."""
        known = self.known
        if not len(known):
            return np.nan, np.nan, np.nan
        drawn = np.random.default_rng(0).integers(len(known), size=(RESAMPLES, len(known)))
        low, high = np.percentile(known[drawn].mean(1), [2.5, 97.5])
        return float(known.mean()), float(low), float(high)


def moving_average(values: NDArray[np.generic], rate: float = RATE) -> Floats:
    """(K, E) the exponential moving average of (K, E), begun at 0."""
    average = np.zeros(values.shape, np.float32)
    now = np.zeros(len(values), np.float64)
    for episode in range(values.shape[1]):
        now += rate * (values[:, episode].astype(np.float64) - now)
        average[:, episode] = now
    return average


def first_above(curves: Floats, level: float) -> Ints:
    """(K,) where each of (K, E) first exceeds `level`; -1: nowhere."""
    above = curves > level
    return np.where(above.any(1), above.argmax(1), -1)


def success(record: Record) -> Floats:
    """(K, E) the moving average of successes, an episode's being a visit to the goal or a cell beside it."""
    return moving_average(record.time_at_goal > 0)


def decomposition(psi: Floats, command: Floats) -> tuple[Floats, Floats]:
    """ψ = c ψ(g) + ζ, ζ at right angles to ψ(g).

    Args:
        psi: (..., S, R) of length 1; command: (..., R), ψ(g).
    Returns:
        c (..., S) and ζ (..., S, R); c² + |ζ|² = 1.
    """
    c: Floats = (psi @ command[..., None])[..., 0]
    zeta: Floats = psi - c[..., None] * command[..., None, :]
    return c, zeta


def principal_directions(zeta: Floats) -> Floats:
    """(2, R) the directions in which ζ, (..., R), varies most from 0, the goal axis.

    Right singular vectors of ζ, not centred. Of each and its opposite the one whose cubed entries sum above 0.
    """
    _, _, directions = np.linalg.svd(zeta.reshape(-1, zeta.shape[-1]), full_matrices=False)
    sign = np.where((directions[:2] ** 3).sum(1, keepdims=True) < 0, -1, 1)
    main: Floats = sign.astype(np.float32) * directions[:2]
    return main


def over_time(record: Record, seed: int) -> tuple[Floats, Floats]:
    """c (M, S), and ζ (M, S, 2) along its two principal directions over all moments kept."""
    c, zeta = decomposition(record.psi[seed], record.command[seed])
    return c, zeta @ principal_directions(zeta).T


def room_shares(record: Record) -> Floats:
    """(K, M, rooms) each room's share of the visits since the moment before; NaN at the first."""
    inside = [record.visits[..., record.world.room == room].sum(-1) for room in range(len(record.world.rooms))]
    with np.errstate(invalid="ignore"):
        shares = np.stack(inside, -1) / record.visits.sum(-1, keepdims=True)
    found: Floats = shares.astype(np.float32)
    return found


def rank_correlation(x: NDArray[np.generic], y: NDArray[np.generic]) -> float:
    """Spearman's, ties at their mean rank; NaN where one does not vary."""
    a, b = (_ranks(values) for values in (x, y))
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale else float("nan")


def _ranks(values: NDArray[np.generic]) -> Doubles:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = count.cumsum()
    ranks: Doubles = (last - (count - 1) / 2)[place]
    return ranks


def statistics(record: Record) -> list[Statistic]:
    """Each claim about the mechanism as a number a seed."""
    world, c, average = record.world, record.c, success(record)
    seeds = len(c)
    reached = first_above((record.time_at_goal > 0).astype(np.float32), 0.5)
    half, found = first_above(average, HALF), first_above(average, FOUND)
    moment_of = np.searchsorted(record.episode, np.stack([reached, half, found]), "right").clip(1, c.shape[1] - 1)
    end = record.moments - 1
    none = np.full(seeds, np.nan)
    fall_first, gap_first, fall_half, visits_half, least_most = (none.copy() for _ in range(5))
    rise_on, rise_off, since_on, since_off, order, rooms_apart = (none.copy() for _ in range(6))
    for k in range(seeds):
        visited = record.first_visit[k] >= 0
        others = np.arange(len(world.cells)) != world.goal
        order[k] = rank_correlation(record.first_visit[k, visited], world.steps_from_start[visited])
        # The goal's own c is 1 always, and the round in which it is first reached has not been learnt from.
        known = visited & (
            record.first_visit[k] < ROUND * (reached[k] // ROUND if reached[k] >= 0 else record.rounds_done)
        )
        unseen = ~visited | (record.first_visit[k] > reached[k] if reached[k] >= 0 else False)
        now = record.psi_at_first[k] @ record.command[k, 0] if reached[k] >= 0 else c[k, end]
        if (known & others).any():
            fall_first[k] = (now - c[k, 0])[known & others].mean()
            if (unseen & others).any():
                gap_first[k] = now[unseen & others].mean() - now[known & others].mean()
        if half[k] >= 0:
            m = moment_of[1, k]
            visits = record.visits[k, : m + 1].sum(0)
            fall_half[k] = ((c[k, m] - c[k, 0]) * visits).sum() / visits.sum()
            visits_half[k] = rank_correlation(visits[others], c[k, m, others])
            by_visits = c[k, m, others][visits[others].argsort(kind="stable")]
            least_most[k] = by_visits[: len(by_visits) // 5].mean() - by_visits[-(len(by_visits) // 5) :].mean()
            rooms = [c[k, m, world.room == room].mean() for room in range(len(world.rooms))]
            rooms_apart[k] = rooms[-1] - rooms[0]
        if found[k] >= 0:
            m = moment_of[2, k]
            on = np.zeros(len(others), np.bool_)
            on[successful_path(record, k)] = True
            change = c[k, end] - c[k, m]
            rise_on[k], rise_off[k] = change[on & others].mean(), change[~on & others].mean()
            change = c[k, end] - c[k, m + c[k, m:].mean(1).argmin()]
            since_on[k], since_off[k] = change[on & others].mean(), change[~on & others].mean()
    greedy = world.near_goal[record.greedy_path[:, end]].any(1)
    latest = record.visits[:, -max(1, end // 10) :].sum(1)
    latest = latest / latest.sum(1, keepdims=True)
    second = record.settings.second
    goals = {"goal": world.goal} if second is None else {"goal": world.goal, "second_goal": second}
    return [
        Statistic("first_reached", _episodes(reached), "episode that first came to the goal"),
        Statistic("half_found", _episodes(half), f"episode in which the success average first exceeds {HALF}"),
        Statistic("found", _episodes(found), f"episode in which it first exceeds {FOUND}"),
        Statistic("success_at_end", average[:, -1].astype(np.float64), "success average at the end"),
        Statistic("greedy_at_end", np.asarray(greedy, np.float64), "whether the best moves lead to the goal then"),
        Statistic(
            "fall_before_first",
            fall_first,
            "change of c of visited states until the goal is first reached, or to the end",
        ),
        Statistic("unvisited_above_visited", gap_first, "mean c of unvisited less that of visited states then"),
        Statistic("fall_before_half", fall_half, "change of c, weighted by visits, until the goal is half found"),
        Statistic("visits_against_c", visits_half, "rank correlation over states of visits so far and c then"),
        Statistic(
            "least_above_most", least_most, "mean c of the fifth of states visited least less that of the most then"
        ),
        Statistic("goal_room_above_start", rooms_apart, "mean c of the last room less that of the first then"),
        Statistic("rise_on_path", rise_on, "change of c after the goal is found, states of the last successful path"),
        Statistic("rise_off_path", rise_off, "the same of all other states"),
        Statistic("rise_on_less_off", np.asarray(rise_on - rise_off, np.float64), "the difference of the two"),
        Statistic(
            "rise_on_path_since_lowest", since_on, "change of c of that path since mean c of all states was lowest"
        ),
        Statistic("rise_off_path_since_lowest", since_off, "the same of all other states"),
        Statistic("distance_order", order, "rank correlation over states of their first visit and their distance"),
        *(
            Statistic(f"steps_at_{name}", latest[:, world.near(goal)].sum(1), "share of the last tenth's steps there")
            for name, goal in goals.items()
        ),
        *(
            Statistic(f"steps_in_room_{number}", latest[:, world.room == number].sum(1), f"the same in the {name}")
            for number, name in enumerate(world.rooms)
        ),
        *(
            Statistic(
                f"first_in_room_{number}", _first_in_room(record, number), f"episode that first came to the {name}"
            )
            for number, name in enumerate(world.rooms)
        ),
    ]


def successful_path(record: Record, seed: int) -> Ints:
    """(n,) the states of the last episode kept that succeeded, up to the goal; of none, the last episode's."""
    world = record.world
    paths = record.path[seed].astype(np.int64)
    for path in paths[::-1]:
        near = world.near_goal[path]
        if near.any():
            return np.unique(path[: near.argmax() + 1])
    return np.unique(paths[-1])


def count_found(record: Record, level: float = FOUND) -> tuple[int, float, float]:
    """How many seeds found the goal, and the 95 % Wilson interval of their share."""
    found = int((first_above(success(record), level) >= 0).sum())
    return found, *wilson_interval(found, len(record.time_at_goal))


def write_statistics(path: Path, records: Sequence[Record]) -> None:
    """A row a statistic and record: name, mean, interval, number of seeds that have it, each seed's value."""
    with whole(path) as place, place.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["study", "statistic", "mean", "low", "high", "seeds", "of", "values", "meaning"])
        for record in records:
            for statistic in statistics(record):
                numbers = [f"{number:.6g}" for number in statistic.interval()]
                values = " ".join(f"{value:.6g}" for value in statistic.values)
                count = [len(statistic.known), len(statistic.values)]
                writer.writerow([record.settings, statistic.name, *numbers, *count, values, statistic.meaning])


def write_curves(path: Path, records: Sequence[Record]) -> None:
    """A row a record, seed and moment: success, greedy success, c at the start, rooms' c and shares of visits."""
    with whole(path) as place, place.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        rooms = records[0].world.rooms
        of_rooms = [f"{what} {room}" for what in ("c", "visits") for room in rooms]
        writer.writerow(["study", "seed", "episode", "success", "greedy", "c start", *of_rooms])
        for record in records:
            world, c, average = record.world, record.c, success(record)
            for seed in range(len(c)):
                for moment in range(record.moments):
                    played = record.episode[moment]
                    visits = record.visits[seed, moment]
                    total = max(int(visits.sum()), 1)
                    inside = [world.room == room for room in range(len(rooms))]
                    writer.writerow(
                        [
                            record.settings,
                            record.settings.first_seed + seed,
                            played,
                            f"{average[seed, played - 1] if played else 0:.4f}",
                            int(world.near_goal[record.greedy_path[seed, moment]].any()),
                            f"{c[seed, moment, world.start]:.4f}",
                            *(f"{c[seed, moment, room].mean():.4f}" for room in inside),
                            *(f"{visits[room].sum() / total:.4f}" for room in inside),
                        ]
                    )


def _episodes(found: Ints) -> Doubles:
    """Numbers of episodes, NaN for -1."""
    return np.where(found >= 0, found, np.nan)


def _first_in_room(record: Record, room: int) -> Doubles:
    visits = record.first_visit[:, record.world.room == room].astype(np.float64)
    first: Doubles = np.where(visits < 0, np.inf, visits).min(1)
    return np.where(np.isinf(first), np.nan, first)
