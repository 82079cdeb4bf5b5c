"""Data sets: rows that were collected before, to learn from without a world (`crl train --dataset`).

A data set is a table of rows in the order of time, trajectory after trajectory: `observation`, `action`,
`achieved_goal` (not where observations are images, which are their own) and `episode_start`, true in the first row of
each. A row is what a world showed and the action taken there; the last row of a trajectory is a goal only, and its
action nothing. Ours is a safetensors file of these columns, written by `crl collect`; those of Minari and OGBench
become such columns when they are read. Letters: N rows, O observation, A action, G goal.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
import safetensors
import safetensors.numpy

from crl.batch import Array
from crl.buffer import TrajectoryBuffer
from crl.collector import Collector
from crl.config import TrainConfig
from crl.envs import EnvSpec
from crl.errors import CheckpointError, ConfigError, MissingExtraError
from crl.files import whole

METADATA, FORMAT = "crl data set", 1
"""Under which name our files say, in JSON, of which version they are and what else is known of them."""
COLUMNS = ("observation", "action", "achieved_goal", "episode_start")
_CHUNK = 1 << 16
"""Rows that go into the buffer at once."""

Columns = dict[str, Array]
"""By name: observation (N, O), action (N, A), achieved_goal (N, G) but for images, episode_start (N,)."""


@dataclass(frozen=True)
class Dataset:
    """A data set, read: the rows in a buffer of their number, and a digest of them."""

    name: str
    buffer: TrajectoryBuffer
    digest: str

    def state_dict(self) -> dict[str, Any]:
        """What is enough to go on, in JSON values: the rows are read again."""
        return {"digest": self.digest, "batches_drawn": self.buffer.batches_drawn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a data set of the same rows was.

        Raises:
            CheckpointError: the rows are others.
        """
        if state["digest"] != self.digest:
            raise CheckpointError(
                f"data set {self.name} does not have the rows with which the run began: "
                "go on with those (--dataset says where they are now), or begin another run."
            )
        self.buffer.skip(state["batches_drawn"] - self.buffer.batches_drawn)


class Source(Protocol):
    """Where a data set comes from."""

    num_rows: int

    def columns(self, config: TrainConfig, spec: EnvSpec) -> Columns:
        """The rows, for a run with `config` in an environment of `spec`."""
        ...


def find(name: str) -> Source:
    """The data set `name`: a file of ours, `minari:ID` or `ogbench:NAME`. Its rows are not read yet.

    Raises:
        ConfigError: there is none of this name, or the file is no data set.
        MissingExtraError: minari or ogbench is not installed.
    """
    scheme, colon, identifier = name.partition(":")
    if colon and scheme in _SCHEMES:
        return _SCHEMES[scheme](identifier)
    if colon and not Path(name).exists():
        raise ConfigError(f"dataset must be a file, minari:ID or ogbench:NAME; there is no file {name!r}.")
    return File(name)


def read(config: TrainConfig, spec: EnvSpec, seed: int) -> Dataset:
    """The data set `config.dataset` in a buffer: one environment has lived through all its trajectories.

    Args:
        config: resolved.
        spec: of `config.env`, whose sizes the columns must have.
        seed: of the buffer's sampler.

    Raises:
        ConfigError: it cannot be found or read, is of another environment, lacks a column, has one of another shape,
            numbers that are not finite, actions out of [-1, 1], or no trajectory of two rows.
        MissingExtraError: minari or ogbench is not installed.
    """
    from crl.run import new_buffer

    columns = find(config.dataset).columns(config, spec)
    _check(config.dataset, columns, spec)
    digest, rows = hashlib.blake2b(digest_size=32), len(columns["episode_start"])
    buffer = new_buffer(spec, 1, rows, seed)
    for name, column in columns.items():
        digest.update(f"{name} {column.dtype} {column.shape}".encode())
        digest.update(np.ascontiguousarray(column).data)
    try:
        for first in range(0, rows, _CHUNK):
            part = {name: column[first : first + _CHUNK, None] for name, column in columns.items()}
            buffer.add_rollout(**part)
    except (TypeError, ValueError) as error:  # NaN, infinity, numbers of another kind
        raise ConfigError(f"data set {config.dataset} cannot be learnt from: {error}.") from None
    return Dataset(config.dataset, buffer, digest.hexdigest())


def _check(name: str, columns: Columns, spec: EnvSpec) -> None:
    """Raise ConfigError unless these are columns of `spec` from which something can be learnt."""
    dims = {"observation": spec.observation_dim, "action": spec.action_dim, "achieved_goal": spec.goal_dim}
    if spec.image:
        del dims["achieved_goal"]
    rows = len(columns["episode_start"])
    expected = {**{column: (rows, dim) for column, dim in dims.items()}, "episode_start": (rows,)}
    if missing := [column for column in expected if column not in columns]:
        raise ConfigError(f"data set {name} has no column {', '.join(missing)}: expected {', '.join(expected)}.")
    for column, shape in expected.items():
        if columns[column].shape != shape:
            raise ConfigError(
                f"data set {name}: {column} has shape {columns[column].shape}, but env {spec.name} asks for {shape}: "
                "choose the environment that it was collected in (--env)."
            )
    for column in columns.keys() - expected.keys():
        raise ConfigError(f"data set {name} has a column {column} that env {spec.name} has not; leave it out.")
    if columns["episode_start"][1:].all():
        raise ConfigError(
            f"data set {name} has {rows} rows and no two of one trajectory: nothing follows upon any action. "
            "Collect more steps in fewer worlds."
        )
    largest = float(np.abs(columns["action"]).max())
    if largest > 1:
        raise ConfigError(
            f"data set {name}: actions lie in [-1, 1] here, and it has one of size {largest:.4g}; rescale them."
        )


# --- files of ours ----------------------------------------------------------------------------------------------------


class File:
    """A safetensors file of the columns, with `metadata`: what was known when it was written."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                self.metadata: dict[str, Any] = dict(json.loads((file.metadata() or {}).get(METADATA, "{}")))
                shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
        except FileNotFoundError:
            raise ConfigError(
                f"data set {path}: there is no such file; `crl collect` writes one, and minari:ID and ogbench:NAME "
                "are those of others."
            ) from None
        except (OSError, TypeError, ValueError, safetensors.SafetensorError) as error:
            raise ConfigError(f"data set {path} cannot be read as a file of `crl collect`: {error}.") from None
        if (known := self.metadata.get("format")) != FORMAT:
            raise ConfigError(
                f"data set {path} is a safetensors file of data set format {known!r}, expected {FORMAT}: write it with "
                "`crl collect` or crl.datasets.write, of this version of crl."
            )
        if missing := [name for name in COLUMNS if name not in shapes and name != "achieved_goal"]:
            raise ConfigError(f"data set {path} has no column {', '.join(missing)}: expected {', '.join(COLUMNS)}.")
        self.num_rows = int((*shapes["episode_start"], 0)[0])

    def columns(self, config: TrainConfig, spec: EnvSpec) -> Columns:
        """As the file has them; refused if it says that they are of another environment."""
        env, options = self.metadata.get("env", spec.name), self.metadata.get("env_options")
        if env != spec.name:
            raise ConfigError(
                f"data set {self.path} is of {env}, and env is {spec.name}: learn from it with --env {env}, and "
                "evaluate elsewhere with --eval-env."
            )
        if options is not None and options != config.env_kwargs:
            raise ConfigError(
                f"data set {self.path} is of {env} with the options {options}, and env has {config.env_kwargs}: give "
                "the same --layout and --env-options."
            )
        try:
            return safetensors.numpy.load_file(self.path)
        except (OSError, safetensors.SafetensorError) as error:
            raise ConfigError(f"data set {self.path} cannot be read: {error}.") from None


def write(path: str | Path, columns: Mapping[str, Array], **metadata: Any) -> None:
    """Write a data set. The file appears whole or not at all, and none is overwritten.

    Args:
        path: of the new file.
        columns: see `Columns`; in the order of time, trajectory after trajectory.
        metadata: what is known of them, as JSON can say it. `env`, the environment's name, and `env_options`, a
            mapping, are held against those of the run that learns from it.

    Raises:
        ConfigError: there is such a file, or it cannot be written.
    """
    path = check_new(path)
    told = {METADATA: json.dumps({"format": FORMAT, **metadata})}  # one entry: the file has several in any order
    arrays = {name: np.ascontiguousarray(column) for name, column in columns.items()}
    try:
        with whole(path) as place:
            path.parent.mkdir(parents=True, exist_ok=True)
            safetensors.numpy.save_file(arrays, place, told)
    except OSError as error:
        raise ConfigError(f"{error}.") from None
    except safetensors.SafetensorError as error:  # its own for a full disk
        raise ConfigError(f"{path} cannot be written: {error}.") from None


def check_new(path: str | Path) -> Path:
    """`path`, where a file may be made. Raises ConfigError if there is one."""
    if Path(path).exists():
        raise ConfigError(f"{path} is there already: choose another name.")
    return Path(path)


# --- collecting -------------------------------------------------------------------------------------------------------


class Recorder:
    """Takes from a `Collector` of so many worlds what a TrajectoryBuffer would, to be given back as columns."""

    def __init__(self, num_envs: int) -> None:
        self._all, self._worlds = np.arange(num_envs), list[Array]()
        self._parts: list[Columns] = []

    def add(self, **columns: Array) -> None:
        """One row of every world."""
        self._store(self._all, **columns)

    @contextlib.contextmanager
    def writer(self, first: int, last: int) -> Iterator[SimpleNamespace]:
        """Rows of the worlds `first` to `last` alone: has `add`, which takes one of each."""
        yield SimpleNamespace(add=lambda **columns: self._store(self._all[first:last], **columns))

    def _store(self, worlds: Array, **columns: Array) -> None:
        self._worlds.append(worlds)
        self._parts.append({name: np.array(column) for name, column in columns.items()})

    def columns(self) -> Columns:
        """All rows: world after world, each in the order of time."""
        order = np.argsort(np.concatenate(self._worlds), kind="stable")
        return {name: np.concatenate([part[name] for part in self._parts])[order] for name in self._parts[0]}


def collect(
    env: Any, policy: Any, num_steps: int, *, seed: int, told: Callable[[int], object] = lambda steps: None
) -> Columns:
    """The rows of at least `num_steps` steps of `policy` in the worlds of vector environment `env`.

    Args:
        env: a `crl.envs` VectorEnv or GoalVectorEnv.
        policy: has `act(observation, goal) -> action tensor [worlds, A]`.
        num_steps: of all worlds together; as many in each.
        seed: of the first reset.
        told: called with the steps just made.
    """
    recorder = Recorder(env.num_envs)
    collector = Collector(env, policy, recorder, seed=seed)
    for _ in range(-(-num_steps // env.num_envs)):
        told(collector.collect(1))
    return recorder.columns()


# --- those of others --------------------------------------------------------------------------------------------------


class Minari:
    """A data set of Minari by its ID, downloaded where it is not here yet: of a goal environment, observations a dict.

    An episode has one observation more than actions: the last becomes a row of its own. Actions are rescaled from the
    bounds of the environment's own to [-1, 1], as `crl.envs` has them, and what lies beyond is clipped.
    """

    def __init__(self, identifier: str) -> None:
        self._name = f"minari:{identifier}"
        minari = _imported("minari", self._name, 'pip install "minari[all]"')
        try:
            self._dataset = minari.load_dataset(identifier, download=True)
        except Exception as error:  # its own, the download's, and those of the files
            raise ConfigError(f"data set {self._name} cannot be had: {' '.join(str(error).split())}") from None
        self.num_rows = int(self._dataset.total_steps + self._dataset.total_episodes)

    def columns(self, config: TrainConfig, spec: EnvSpec) -> Columns:
        """All episodes, one after the other."""
        parts: dict[str, list[Array]] = {name: [] for name in COLUMNS}
        for episode in self._dataset.iterate_episodes():
            shown = episode.observations
            if not isinstance(shown, Mapping) or not {"observation", "achieved_goal"} <= shown.keys():
                raise ConfigError(
                    f"data set {self._name} is of no goal environment: its observations must be a dict with "
                    "observation and achieved_goal. Choose another."
                )
            action = self._rescaled(np.asarray(episode.actions, np.float32))
            length = len(action) + 1
            for name in ("observation", "achieved_goal"):
                column = np.asarray(shown[name], np.float32)
                if len(column) != length:
                    raise ConfigError(
                        f"data set {self._name}: expected {length} rows of {name} for {len(action)} actions in episode "
                        f"{episode.id}, got {len(column)}. Choose another."
                    )
                parts[name].append(column.reshape(length, -1))
            parts["action"].append(np.concatenate((action, np.zeros_like(action[:1]))))
            parts["episode_start"].append(np.arange(length) == 0)
        return {name: np.concatenate(arrays) for name, arrays in parts.items()}

    def _rescaled(self, action: Array) -> Array:
        bounds = self._dataset.action_space
        middle, half = (bounds.high + bounds.low) / 2, (bounds.high - bounds.low) / 2
        rescaled: Array = np.clip((action - middle) / half, -1, 1).astype(np.float32)
        return rescaled


class OGBench:
    """A data set of OGBench by its name, such as antmaze-medium-navigate-v0; downloaded where it is not here yet.

    Its files have a row for each observation, the final ones that `terminals` marks included. What is achieved is the
    whole observation where the environment's goals are as long, as OGBench's own agents have it; else what OGBench
    calls the oracle representation, the goals of `crl.envs` for it: x and y in the mazes.
    """

    def __init__(self, name: str) -> None:
        self._name, self._label = name, f"ogbench:{name}"
        self._utils = _imported("ogbench.utils", self._label, 'pip install "crl[robotics]"')
        directory = Path(self._utils.DEFAULT_DATASET_DIR).expanduser()
        try:
            self._utils.download_datasets([name], str(directory))
            self._file: Mapping[str, Array] = np.load(directory / f"{name}.npz")
            missing = [column for column in ("observations", "actions", "terminals") if column not in self._file]
            if missing:
                raise ConfigError(f"data set {self._label} has no column {', '.join(missing)}: it is none of OGBench.")
            self._terminal = self._file["terminals"] > 0
        except (OSError, ValueError) as error:  # a ConfigError too is a ValueError
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"data set {self._label} cannot be had: {error}.") from None
        self.num_rows = len(self._terminal)

    def columns(self, config: TrainConfig, spec: EnvSpec) -> Columns:
        """The rows of its file."""
        observation = np.asarray(self._file["observations"], np.float32)
        return {
            "observation": observation,
            "action": np.asarray(self._file["actions"], np.float32),
            "achieved_goal": observation if spec.goal_dim == spec.observation_dim else self._oracle(),
            "episode_start": np.concatenate(([True], self._terminal[:-1])),
        }

    def _oracle(self) -> Array:
        known = {name: self._file[name] for name in ("qpos", "button_states") if name in self._file}
        env = None if "maze" in self._name or "soccer" in self._name else self._env()
        try:
            import_module("ogbench.relabel_utils").add_oracle_reps(self._name, env, known)
        except KeyError as error:
            raise ConfigError(
                f"data set {self._label} has no column {error.args[0]}, of which the goals of env are made; "
                "let OGBench download it anew."
            ) from None
        return known["oracle_reps"]

    def _env(self) -> Any:
        return import_module("ogbench").make_env_and_datasets(self._name, env_only=True)


def _imported(module: str, name: str, install: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"data set {name} needs {error.name}, which is not installed: {install}") from None


_SCHEMES: Mapping[str, Callable[[str], Source]] = {"minari": Minari, "ogbench": OGBench}
