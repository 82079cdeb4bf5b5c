"""Checkpoints: directories that are either whole or not there, and never hold code.

`checkpoints/step_N/` is written under another name and renamed when complete. Its MANIFEST.json, written last, lists
every file with size and BLAKE2b digest; what does not match it is refused. A kill at any moment leaves the run with
the checkpoints it had before, or with the new one. Where a run has several ranks, each writes its own files into the
one directory, and rank 0 renames it when all have.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from crl.errors import CheckpointError
from crl.ranks import ALONE, Ranks

MANIFEST = "MANIFEST.json"
_FORMAT = 1
_NAME = re.compile(r"step_(\d+)|\.step_(\d+)\.replaced")
"""A checkpoint, or the former one of the same step while the new one takes its place."""


def save(
    run: Path, step: int, files: Mapping[str, Callable[[Path], object]], *, keep: int, ranks: Ranks = ALONE
) -> Path:
    """Write checkpoint `run/checkpoints/step_{step}` and delete all but the newest `keep` of the run.

    Args:
        run: the run directory.
        step: names the checkpoint: env steps, or updates where none are made. One of the same name is replaced.
        files: for each file name, a function that writes it to the path it is given, or raises OSError. Every rank
            gives its own, under names that no other has, and `run` must be one directory for all.
        keep: how many checkpoints stay.
        ranks: the processes of the run, all of which must call this.

    Raises:
        CheckpointError: when something cannot be written; earlier checkpoints are as they were.
    """
    parent = run / "checkpoints"
    target, partial = parent / f"step_{step}", parent / f".step_{step}.partial"
    replaced = parent / f".step_{step}.replaced"

    def begin() -> None:
        for left_by_a_kill in parent.glob(".step_*.partial"):
            shutil.rmtree(left_by_a_kill, ignore_errors=True)
        partial.mkdir(parents=True)

    def write_own() -> dict[str, Any]:
        for name, write in files.items():
            write(partial / name)
        entries = {name: _fingerprint(partial / name) for name in files}
        for name in files:
            _sync(partial / name)
        return entries

    def publish(entries: dict[str, Any]) -> None:
        manifest = partial / MANIFEST
        manifest.write_text(json.dumps({"format": _FORMAT, "files": entries}, indent=1), encoding="utf-8")
        _sync(manifest)
        _sync(partial)
        if target.exists():
            shutil.rmtree(replaced, ignore_errors=True)
            os.rename(target, replaced)
        os.rename(partial, target)
        _sync(parent)
        _sync(run)

    def tidy() -> None:
        checkpoints = complete(run)
        for old in (*checkpoints, *parent.glob(".step_*.replaced")):
            if old not in checkpoints[-keep:]:
                shutil.rmtree(old, ignore_errors=True)

    try:
        ranks.leads(begin)
        written = ranks.together(write_own)
        ranks.leads(lambda: publish({name: entry for entries in written for name, entry in entries.items()}))
    except OSError as error:
        if ranks.rank == 0:
            shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(
            f"checkpoint {target} cannot be written: {error}. Earlier checkpoints are intact."
        ) from error
    if ranks.rank == 0:
        tidy()
    return target


def complete(run: Path) -> list[Path]:
    """The run's checkpoints that have a manifest, oldest first."""
    newest: dict[int, Path] = {}
    # Sorted, a replaced one (its name begins with a dot) comes before the one that takes its place.
    for path in sorted((run / "checkpoints").glob("*step_*")):
        if (match := _NAME.fullmatch(path.name)) and (path / MANIFEST).is_file():
            newest[int(match[1] or match[2])] = path
    return [newest[step] for step in sorted(newest)]


def latest(run: Path) -> Path:
    """The run's newest complete checkpoint, verified.

    Raises:
        CheckpointError: when there is none, or it does not match its manifest (naming the file).
    """
    found = complete(run)
    if not found:
        reason = "no complete checkpoint yet" if run.is_dir() else "no such directory"
        raise CheckpointError(f"{run} cannot be loaded: {reason}.")
    try:
        verify(found[-1])
    except CheckpointError as error:
        way_out = f"delete {found[-1]} to go on from {found[-2].name}" if len(found) > 1 else "there is no older one"
        raise CheckpointError(f"{error} ({way_out})") from None
    return found[-1]


def at(run: Path, step: int) -> Path:
    """The run's checkpoint of that name, verified.

    Raises:
        CheckpointError: it is not there (naming those that are), or does not match its manifest.
    """
    found = {path.name: path for path in complete(run)}
    if f"step_{step}" not in found:
        there = f"it has {', '.join(found)}" if found else "it has none"
        raise CheckpointError(f"{run} has no complete checkpoint step_{step}: {there}.")
    verify(found[f"step_{step}"])
    return found[f"step_{step}"]


def verify(directory: Path) -> None:
    """Raise CheckpointError, naming the file, unless `directory` holds exactly what its manifest says."""
    try:
        manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != _FORMAT:
            raise CheckpointError(
                f"checkpoint {directory} has format {manifest['format']}, expected {_FORMAT}: upgrade crl."
            )
        entries = manifest["files"].items()
        plain = {entry.name for entry in os.scandir(directory) if entry.is_file(follow_symlinks=False)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"checkpoint {directory} is damaged: {MANIFEST} is unreadable ({error}).") from None
    for name, expected in entries:
        # Only names that are there are opened: none leads elsewhere.
        if name not in plain:
            raise CheckpointError(f"checkpoint {directory} is damaged: {name!r} is missing, or not a plain file of it.")
        if _fingerprint(directory / name) != expected:
            raise CheckpointError(f"checkpoint {directory} is damaged: {name} does not match its digest.")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`."""
    return dict(json.loads(path.read_text(encoding="utf-8")))


def writer(save_file: Callable[[Any, Path], None], state: Callable[[], Any]) -> Callable[[Path], None]:
    """A function for `save` that writes what `state` returns by `save_file`, one of safetensors', which has an error of
    its own for a full disk.
    """

    from safetensors import SafetensorError  # looking for checkpoints does not take it

    def write(path: Path) -> None:
        try:
            save_file(state(), path)
        except SafetensorError as error:
            raise OSError(str(error)) from None

    return write


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "blake2b": hashlib.file_digest(file, "blake2b").hexdigest()}


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
