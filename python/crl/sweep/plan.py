"""The file of a sweep: what varies, how often, and what all have in common. It is refused before anything starts."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crl.config import SETTINGS, check, file_key, from_mapping, number_of, read_yaml, to_mapping
from crl.errors import ConfigError, nearest
from crl.resolution import resolve
from crl.sweep.trial import Trial, conflict

KEYS = ("name", "description", "train", "grid", "seeds", "submitit", "ray")
PLACED = {"run_dir": "the sweep gives every run a directory (--output)", "seed": "it has a key of its own: seeds"}
"""Settings that a sweep sets itself."""
LONGEST_VALUE = 40
"""Characters of a value in the name of a directory."""
EXPERIMENTS = Path(__file__).with_name("experiments")
"""Sweeps that are part of the package: those of publications, small."""


@dataclass(frozen=True)
class Sweep:
    """What a file asks for."""

    name: str
    trials: tuple[Trial, ...]
    backends: Mapping[str, Mapping[str, Any]]
    """For each backend its own options."""


def experiments() -> dict[str, str]:
    """The names of the package's own sweeps, each with what its file says that it is."""
    return {path.stem: str(read_yaml(path)["description"]) for path in sorted(EXPERIMENTS.glob("*.yaml"))}


def located(file: str) -> Path:
    """The file of a sweep: `file` itself or, where there is none, that of the package's own of this name.

    Raises:
        ConfigError: there is neither.
    """
    known = {path.stem: path for path in sorted(EXPERIMENTS.glob("*.yaml"))}
    if file in known and not Path(file).exists():
        return known[file]
    if not Path(file).exists():
        hint = nearest(file, known) or " `crl sweep --list` shows those."
        raise ConfigError(f"there is no file {file}, nor a sweep of that name in the package.{hint}")
    return Path(file)


def read(path: str | Path, output: str | Path | None = None) -> Sweep:
    """The sweep in YAML file `path`, checked as a whole.

    Args:
        path: the file.
        output: directory of the runs; None: `runs/NAME`.

    Raises:
        ConfigError: on anything in the file that cannot be, on two trials that are the same, or on a run in the
            directory that was made with other settings.
    """
    values = read_yaml(path)
    where = f"sweep {path}"
    for key in values:
        if key not in KEYS:
            at_home = " It is a setting: put it under train, or its values under grid." if key in _keys() else ""
            raise ConfigError(f"{where} has an unknown key {key!r}.{at_home or nearest(str(key), KEYS)}")
    name = values.get("name", Path(path).stem)
    if not isinstance(name, str) or not re.fullmatch(r"[\w.+-]+", name):
        raise ConfigError(f"{where}: name must be letters, digits and . _ + - alone, got {name!r}.")
    if not isinstance(values.get("description", ""), str):
        raise ConfigError(f"{where}: description must be text, got {values['description']!r}.")
    common = _section(values, "train", where)
    _check(common, f"{where}: train")
    folder = Path(output) if output else Path("runs") / name
    trials = []
    for varied in _combinations(values, common, where):
        for seed in _seeds(values.get("seeds", 1), where):
            settings = {**common, **varied, "seed": seed}
            keys = (*varied, "seed")
            trial_name = ",".join(f"{key}={_short(settings[key])}" for key in keys)
            trials.append(Trial(trial_name, settings, keys, folder / trial_name))
    _check_trials(trials, where)
    backends = {key: _section(values, key, where) for key in ("submitit", "ray")}
    return Sweep(name, tuple(trials), backends)


def _keys() -> list[str]:
    return [file_key(name) for name in SETTINGS]


def _section(values: Mapping[Any, Any], key: str, where: str) -> dict[str, Any]:
    section = values.get(key)
    if section is None:
        return {}
    if not isinstance(section, dict):
        raise ConfigError(f"{where}: {key} must be a mapping, got {section!r}.")
    return {name: number_of(name, value) for name, value in section.items()}


def _check(settings: Mapping[Any, Any], where: str) -> None:
    """Names and values, one by one."""
    for key, reason in PLACED.items():
        if key in settings:
            raise ConfigError(f"{where} has {key}, but {reason}.")
    from_mapping(settings, origin=where)


def _combinations(values: Mapping[Any, Any], common: Mapping[str, Any], where: str) -> Iterator[dict[str, Any]]:
    """Every choice of one value for each key of a grid; of several grids, those of each in turn."""
    grids = values.get("grid")
    several = isinstance(grids, list)
    for number, grid in enumerate(grids if isinstance(grids, list) else [grids or {}]):
        place = f"{where}: grid" + (f" {number + 1}" if several else "")
        if not isinstance(grid, dict):
            raise ConfigError(f"{place} must be a mapping of settings to lists of values, got {grid!r}.")
        for key, choices in grid.items():
            if key in PLACED or key not in _keys():
                _check({key: None}, place)
            if key in common:
                raise ConfigError(f"{place}: {key} is under train too; leave one of them out.")
            if not isinstance(choices, list) or not choices:
                raise ConfigError(f"{place}: {key} must be a list of values, such as [{_example(choices)}].")
            grid[key] = [number_of(key, value) for value in choices]
            setting = next(setting for setting in SETTINGS.values() if file_key(setting.name) == key)
            for value in grid[key]:
                try:
                    check(setting, value)
                except ConfigError as error:
                    raise ConfigError(f"{place}: {error}") from None
            if twice := [value for n, value in enumerate(grid[key]) if value in grid[key][:n]]:
                raise ConfigError(f"{place}: {key} has {twice[0]!r} twice.")
        for chosen in itertools.product(*grid.values()):
            yield dict(zip(grid, chosen, strict=True))


def _example(value: Any) -> str:
    return "1, 2" if value in (None, [], "") or isinstance(value, dict) else str(value)


def _seeds(seeds: Any, where: str) -> list[int]:
    """0, 1, ... for a number, or those listed."""
    if isinstance(seeds, int) and not isinstance(seeds, bool) and seeds >= 1:
        return list(range(seeds))
    whole = isinstance(seeds, list) and all(isinstance(seed, int) and not isinstance(seed, bool) for seed in seeds)
    if not whole or not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"{where}: seeds must be how many, at least 1, or a list of different ones, got {seeds!r}.")
    for seed in seeds:
        try:
            check(SETTINGS["seed"], seed)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
    return list(seeds)


def _short(value: Any) -> str:
    """A value as a part of a directory's name."""
    text = str(value)
    plain = re.sub(r"[^\w.+-]+", "-", text).strip("-") or "none"
    if len(text) <= LONGEST_VALUE and "\n" not in text:
        return plain
    return f"{plain[: LONGEST_VALUE - 9]}-{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}"


def _check_trials(trials: list[Trial], where: str) -> None:
    """Resolve every trial as its run will be, and hold them to each other and to what is there."""
    known: dict[tuple[Any, ...], str] = {}
    places: dict[Path, str] = {}
    for trial in trials:
        try:
            given = from_mapping(trial.settings)
            device = "cpu" if given.device == "auto" else given.device
            resolved = to_mapping(resolve(given, device=device, num_cores=1).config)
        except ConfigError as error:
            raise ConfigError(f"{where}: trial {trial.name}: {error}") from None
        same = tuple(resolved.values())
        if other := known.get(same) or places.get(trial.run_dir):
            reason = "are the same run" if same in known else "would have one directory"
            raise ConfigError(f"{where}: trials {other} and {trial.name} {reason}; leave one of them out.")
        known[same] = places[trial.run_dir] = trial.name
        if reason := conflict(trial, resolved):
            raise ConfigError(f"{where}: {reason}: choose another --output, or move that run away.")
