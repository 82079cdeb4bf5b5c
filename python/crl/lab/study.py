"""A study: several seeds of one learner side by side, round after round, and what is kept of them.

Letters: K seeds, E episodes of a run, S states, T steps of an episode, R entries of a representation, M moments kept.
"""

from __future__ import annotations

import dataclasses
import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from crl.errors import CheckpointError, ConfigError, nearest
from crl.files import whole
from crl.lab.rooms import WORLDS, World

INITS = ("symmetric", "random", "distance")
LOSSES = {"backward": "backward_infonce", "forward": "forward_infonce", "both": "symmetric_infonce"}
"""Each with what `crl.losses.contrastive_loss` calls it."""
GOAL_COMMANDS = ("single", "random-vector", "redrawn-vector")

# Bastankhah et al. (2025), the program for tables.
HORIZON = 100
"""Steps of an episode, T; reaching the goal does not end it."""
ROUND = 5
"""Episodes between two updates."""
KEPT = 1000
"""Latest episodes that updates draw from."""
PAIRS = 128
"""Pairs (state, later state) of an update, each from an episode drawn at random."""
GAMMA = 0.99
"""The later state is k >= 1 steps on, P(k) proportional to GAMMA^k."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Settings:
    """What is studied. Raises ConfigError for what cannot be."""

    world: str = "four-rooms"
    init: str = "symmetric"
    dimension: int = 16
    loss: str = "backward"
    goal_command: str = "single"
    neural: bool = False
    temperature: float = 0.1
    """Moves are drawn from a softmax of energies over this."""
    spread: float = 0.2
    """How far from ψ(g) states begin, in units of 0.1 a dimension."""
    second_goal: str = ""
    """Row and column of another goal: what is commanded is the mean of both goals' representations."""
    orthogonal: str = ""
    """Rooms whose states begin at right angles to ψ(g)."""
    forced: str = ""
    """Rooms and what the policy takes c of their states for, whatever is learnt: "upper-right=-1"."""
    seeds: int = 10
    episodes: int = 50_000
    first_seed: int = 0

    def __post_init__(self) -> None:
        for name, known in (
            ("world", tuple(WORLDS)),
            ("init", INITS),
            ("loss", tuple(LOSSES)),
            ("goal_command", GOAL_COMMANDS),
        ):
            if (value := getattr(self, name)) not in known:
                raise ConfigError(f"{name} must be one of {', '.join(known)}, got {value!r}.{nearest(value, known)}")
        for name, least in (("dimension", 2), ("seeds", 1), ("episodes", ROUND), ("first_seed", 0)):
            if (value := getattr(self, name)) < least:
                raise ConfigError(f"{name} must be at least {least}, got {value}.")
        if not (self.temperature > 0 and self.spread > 0):
            raise ConfigError(f"temperature and spread must be above 0, got {self.temperature:g} and {self.spread:g}.")
        of_tables = {
            "init distance": self.init == "distance",
            "goal_command redrawn-vector": self.goal_command == "redrawn-vector",
            **{name: getattr(self, name) != SETTINGS[name].default for name in OF_TABLES},
        }
        if self.neural and (given := [name for name, chosen in of_tables.items() if chosen]):
            raise ConfigError(f"{', '.join(given)}: of tables alone; leave it out, or --neural.")
        if self.second_goal and self.goal_command != "single":
            raise ConfigError(
                f"second_goal needs goal_command single, got {self.goal_command}: its vector is no goal's."
            )
        _ = self.second, self.orthogonal_rooms, self.forced_c

    @property
    def rounds(self) -> int:
        """Updates: of the last episodes, if they are fewer than a round's, none is made."""
        return self.episodes // ROUND

    @property
    def second(self) -> int | None:
        """The state of the second goal."""
        if not self.second_goal:
            return None
        world = WORLDS[self.world]()
        try:
            row, column = (int(part) for part in self.second_goal.split(","))
            if min(row, column) < 0 or (state := world.number[row, column]) < 0:
                raise IndexError
        except (ValueError, IndexError):
            raise ConfigError(
                f"second_goal: expected row and column of a free cell of {world.name}, such as 9,6, got "
                f"{self.second_goal!r}."
            ) from None
        return int(state)

    @property
    def orthogonal_rooms(self) -> list[int]:
        """Numbers of the rooms."""
        return [self._room("orthogonal", name) for name in self.orthogonal.split(",") if name]

    @property
    def forced_c(self) -> dict[int, float]:
        """c by the number of the room."""
        found = {}
        for part in filter(None, self.forced.split(",")):
            name, _, value = part.partition("=")
            try:
                found[self._room("forced", name)] = c = float(value)
                if not -1 <= c <= 1:
                    raise ValueError
            except ConfigError:
                raise
            except ValueError:
                raise ConfigError(
                    f"forced: expected rooms with a cosine, such as upper-right=-1, got {self.forced!r}."
                ) from None
        return found

    def _room(self, setting: str, name: str) -> int:
        known = [room.replace(" ", "-") for room in WORLDS[self.world]().rooms]
        if name not in known:
            raise ConfigError(
                f"{setting}: expected rooms among {', '.join(known)}, got {name!r}.{nearest(name, known)}"
            )
        return known.index(name)

    def __str__(self) -> str:
        kind = "networks" if self.neural else "table"
        told = [f"{WORLDS[self.world]().name}: {self.init} initialisation", f"{kind} of {self.dimension}"]
        if self.goal_command != "single":
            told.append(f"{self.goal_command.replace('-', ' ')} commanded")
        for name in ("temperature", *OF_TABLES):
            if (value := getattr(self, name)) != SETTINGS[name].default:
                told.append(f"{name.replace('_', ' ')} {value}")
        return ", ".join(told)


SETTINGS = {field.name: field for field in dataclasses.fields(Settings)}
OF_TABLES = ("spread", "second_goal", "orthogonal", "forced")
"""Settings that networks have not."""


class Learner(Protocol):
    """What a study needs: K learners, one a seed, none depending on another."""

    def energies(self) -> Floats:
        """(K, S, 5) how well each move serves the command."""

    def update(self, states: Ints, moves: Ints, generators: list[np.random.Generator]) -> None:
        """Keep the round's episodes, states (K, ROUND, T + 1) and moves (K, ROUND, T), and learn once."""

    def psi(self) -> Floats:
        """(K, S, R) unit representations of the states."""

    def command(self) -> Floats:
        """(K, R) the unit representation that is commanded."""


@dataclass
class Record:
    """What a study has seen. Arrays are filled as it goes on; the first `rounds_done` rounds and `moments` count."""

    settings: Settings
    episode: Ints
    """(M,) episodes before each moment kept: the first 0, the last the whole budget, evenly spread between."""
    time_at_goal: NDArray[np.uint8]
    """(K, E) steps of each episode near the goal."""
    time_in_room: NDArray[np.uint16]
    """(K, E / ROUND, rooms) steps of each round in each room."""
    visits: NDArray[np.int32]
    """(K, M, S) how often each state was visited since the moment before."""
    first_visit: NDArray[np.int32]
    """(K, S) the episode in which a state was first visited; -1: in none."""
    psi: Floats
    """(K, M, S, R) representations."""
    command: Floats
    """(K, M, R) the representation commanded."""
    psi_at_first: Floats
    """(K, S, R) representations when the goal was first reached, before the update that follows; 0: never reached."""
    path: NDArray[np.int16]
    """(K, M, T + 1) states of the latest episode; at the first moment those of the next one."""
    greedy_path: NDArray[np.int16]
    """(K, M, T + 1) states of the policy's best moves."""
    rounds_done: int = 0
    moments: int = 0

    def so_far(self) -> Record:
        """What counts, alone: the record of a study that was as long as this has come."""
        played, kept = ROUND * self.rounds_done, self.moments
        by_moment = {
            name: getattr(self, name)[:, :kept] for name in ("visits", "psi", "command", "path", "greedy_path")
        }
        return dataclasses.replace(
            self,
            episode=self.episode[:kept],
            time_at_goal=self.time_at_goal[:, :played],
            time_in_room=self.time_in_room[:, : self.rounds_done],
            **{name: getattr(self, name)[:, :kept] for name in by_moment},
        )

    @property
    def world(self) -> World:
        """Where it took place."""
        return WORLDS[self.settings.world]()

    @property
    def c(self) -> Floats:
        """(K, M, S) c(s) = ψ(s)·ψ(g), the cosine with what is commanded."""
        c: Floats = (self.psi @ self.command[..., None])[..., 0]
        return c

    def save(self, path: Path) -> None:
        """Write all arrays and the settings to an .npz file, without pickle."""
        arrays = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        arrays["settings"] = np.array(json.dumps(dataclasses.asdict(self.settings)))
        with whole(path) as place:
            np.savez_compressed(place, **arrays)

    @classmethod
    def load(cls, path: Path) -> Record:
        """Read what `save` wrote. Raises CheckpointError when it is something else."""
        try:
            with np.load(path) as file:
                arrays: dict[str, Any] = {field.name: file[field.name] for field in dataclasses.fields(cls)}
            arrays["settings"] = Settings(**json.loads(str(arrays["settings"])))
        except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise CheckpointError(f"{path} is not a record of `crl lab`: {error}") from None
        return cls(**{**arrays, **{name: int(arrays[name]) for name in ("rounds_done", "moments")}})


@dataclass
class Study:
    """K seeds of one learner, a round at a time.

    A seed's results do not depend on how many others there are: each has a generator of its own.

    Args:
        settings: what is studied.
        moments: how often representations are kept, first and last included.
    """

    settings: Settings
    moments: int = 101
    world: World = field(init=False)
    learner: Learner = field(init=False)
    record: Record = field(init=False)

    def __post_init__(self) -> None:
        settings = self.settings
        self.world = WORLDS[settings.world]()
        seeds = range(settings.first_seed, settings.first_seed + settings.seeds)
        self._generators = [np.random.default_rng(seed) for seed in seeds]
        if settings.neural:
            from crl.lab.neural import Networks

            self.learner = Networks(self.world, settings, self._generators)
        else:
            from crl.lab.tabular import Table

            self.learner = Table(self.world, settings, self._generators)
        self._keep_at = np.unique(np.linspace(0, settings.rounds, self.moments).round().astype(np.int64))
        k, m, s, r = settings.seeds, len(self._keep_at), len(self.world.cells), settings.dimension
        self.record = Record(
            settings,
            episode=ROUND * self._keep_at,
            time_at_goal=np.zeros((k, settings.rounds * ROUND), np.uint8),
            time_in_room=np.zeros((k, settings.rounds, len(self.world.rooms)), np.uint16),
            visits=np.zeros((k, m, s), np.int32),
            first_visit=np.full((k, s), -1, np.int32),
            psi=np.zeros((k, m, s, r), np.float32),
            command=np.zeros((k, m, r), np.float32),
            psi_at_first=np.zeros((k, s, r), np.float32),
            path=np.zeros((k, m, HORIZON + 1), np.int16),
            greedy_path=np.zeros((k, m, HORIZON + 1), np.int16),
        )
        self._visits = np.zeros((k, s), np.int64)

    @property
    def done(self) -> bool:
        """Whether all episodes have been played."""
        return self.record.rounds_done == self.settings.rounds

    def round(self) -> None:
        """Play `ROUND` episodes with each seed, then let it learn once."""
        record, world, number = self.record, self.world, self.record.rounds_done
        energies = self.learner.energies()
        episodes, moves = roll_out(world, policy(energies, self.settings.temperature), self._generators)
        if number == 0:
            self._keep(energies, episodes[:, 0])
        first, last = ROUND * number, ROUND * (number + 1)
        at_goal = world.near_goal[episodes[..., 1:]].sum(-1)
        newly = at_goal.any(1) & ~record.time_at_goal[:, :first].any(1)
        if newly.any():
            record.psi_at_first[newly] = self.learner.psi()[newly]
        record.time_at_goal[:, first:last] = at_goal
        self._count(episodes, number)
        self.learner.update(episodes, moves, self._generators)
        record.rounds_done += 1
        if record.rounds_done == self._keep_at[record.moments]:
            self._keep(self.learner.energies(), episodes[:, -1])

    def _count(self, episodes: Ints, number: int) -> None:
        """Visits of the round, (K, ROUND, T + 1), by state and by room; the start counts where it is returned to."""
        record, (k, s) = self.record, self._visits.shape
        seen = np.bincount((np.arange(k)[:, None, None] * s + episodes[..., 1:]).ravel(), minlength=k * s).reshape(k, s)
        self._visits += seen
        rooms = self.world.room
        for room in range(record.time_in_room.shape[-1]):
            record.time_in_room[:, number, room] = seen[:, rooms == room].sum(1)
        fresh = (record.first_visit < 0) & (seen > 0)
        for seed in np.flatnonzero(fresh.any(1)):
            for state in np.flatnonzero(fresh[seed]):
                episode = (episodes[seed] == state).any(1).argmax()
                record.first_visit[seed, state] = ROUND * number + episode

    def _keep(self, energies: Floats, path: Ints) -> None:
        record, moment = self.record, self.record.moments
        record.psi[:, moment], record.command[:, moment] = self.learner.psi(), self.learner.command()
        record.visits[:, moment], record.path[:, moment] = self._visits, path
        record.greedy_path[:, moment] = best_moves(self.world, energies)
        self._visits[:] = 0
        record.moments += 1


def policy(energies: Floats, temperature: float) -> Floats:
    """(K, S, 5) energies -> (K, S, 5) probabilities of the moves: their softmax over `temperature`."""
    scaled = (energies - energies.max(-1, keepdims=True)) / temperature
    weight = np.exp(scaled)
    probabilities: Floats = weight / weight.sum(-1, keepdims=True)
    return probabilities


def roll_out(world: World, probabilities: Floats, generators: list[np.random.Generator]) -> tuple[Ints, Ints]:
    """`ROUND` episodes of each of K policies, (K, S, 5) -> states (K, ROUND, T + 1) and moves (K, ROUND, T)."""
    k, s, num_moves = probabilities.shape
    # All seeds' moves in one ascending list: move a of row r, a state of one seed, ends at r + P(first moves up to a).
    # Where r plus a uniform number falls is the move, found by one search.
    ends = probabilities.reshape(k * s, num_moves).cumsum(-1, dtype=np.float64)
    ends[:, -1] = 1
    ends = (ends + np.arange(k * s)[:, None]).ravel()
    leads = (world.next_state + s * np.arange(k)[:, None, None]).ravel()
    drawn = np.stack([generator.random((HORIZON, ROUND)) for generator in generators], 1).reshape(HORIZON, k * ROUND)
    row, chosen = np.empty((HORIZON + 1, k * ROUND), np.int64), np.empty((HORIZON, k * ROUND), np.int64)
    row[0] = np.repeat(s * np.arange(k) + world.start, ROUND)
    for t in range(HORIZON):
        chosen[t] = ends.searchsorted(row[t] + drawn[t], "right")
        row[t + 1] = leads[chosen[t]]
    return row.T.reshape(k, ROUND, HORIZON + 1) % s, chosen.T.reshape(k, ROUND, HORIZON) % num_moves


def best_moves(world: World, energies: Floats) -> Ints:
    """(K, S, 5) energies -> states (K, T + 1) of an episode of the best moves; of equal ones the first."""
    ahead = np.take_along_axis(world.next_state[None], energies.argmax(-1)[..., None], -1)[..., 0]
    states = np.empty((len(energies), HORIZON + 1), np.int64)
    states[:, 0] = world.start
    for t in range(HORIZON):
        states[:, t + 1] = ahead[np.arange(len(ahead)), states[:, t]]
    return states
