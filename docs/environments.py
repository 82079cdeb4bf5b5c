"""Writes the parts of docs/environments.md that stand between markers, out of what the environments say of themselves.

python docs/environments.py               the text
python docs/environments.py --pictures    and docs/images, one picture a family
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from crl import envs
from crl.envs.registry import create

PAGE = Path(__file__).with_suffix(".md")
IMAGES = PAGE.parent / "images"
MARKED = re.compile(r"(<!-- (\w+): written by docs/environments.py -->\n).*?(<!-- end -->)", re.DOTALL)
FEW = 6  # names that are listed one by one
SIZE, QUALITY, SEED = 320, 78, 1  # of pictures


def families() -> list[list[str]]:
    """Names that differ in nothing but their maze, together; in order of registration."""
    found: dict[Any, list[str]] = {}
    for name in envs.names():
        task = create(name, {})
        words = replace(task.spec, name="x", description="" if hasattr(task, "maze") else task.spec.description)
        found.setdefault((type(task), words), []).append(name)
    return list(found.values())


def listed(names: list[str]) -> str:
    """The names of a family, or the first and last of many."""
    known = envs.aliases()
    shown = names if len(names) <= FEW else [names[0], names[-1]]
    told = (" … " if len(names) > FEW else ", ").join(f"`{name}`" for name in shown)
    also = ", ".join(f"`{alias}`" for alias, name in known.items() if name in names)
    return told + (f" (also {also})" if also else "")


def worlds() -> Iterator[str]:
    """An overview, then a section a family."""
    yield "| name | observation | action | goal | success | control step | ends early |"
    yield "|---|---|---|---|---|---|---|"
    for names in families():
        spec = envs.spec(names[0])
        yield (
            f"| {listed(names)} | {spec.observation_dim} | {spec.action_dim} | {spec.goal_dim} | {spec.success} "
            f"| {spec.dt:g} s | {spec.terminates} |"
        )
    for names in families():
        task = create(names[0], {})
        spec, maze = task.spec, getattr(task, "maze", None)
        many = f": {len(names)} [mazes](#mazes)" if len(names) > FEW else ""
        yield ""
        yield f"### {listed(names)}{many}"
        yield ""
        yield f"![{names[0]}](images/{names[0]}.jpg)"
        yield ""
        if spec.description and maze is None:
            yield f"{spec.description[0].upper()}{spec.description[1:]}."
            yield ""
        yield "| | |"
        yield "|---|---|"
        yield from (f"| {heading} | {text.replace('|', '/')} |" for heading, text in spec.facts().items())


def layouts() -> Iterator[str]:
    """Every grid once, by the name that it has as a point maze, or else by its environment's."""
    yield "| layout | cells | goals | cells to walk |"
    yield "|---|---|---|---|"
    seen = set()
    for name in sorted(envs.names(), key=lambda name: not name.startswith("point_")):
        maze = getattr(create(name, {}), "maze", None)
        if maze is None or maze.rows in seen or "random" in name:
            continue
        seen.add(maze.rows)
        walks = maze.steps_from_start[maze.grid == "G"]
        rows, columns = maze.grid.shape
        short = name.removeprefix("point_")
        yield f"| `{short}` | {rows} by {columns} | {len(walks)} | {walks.min()} to {walks.max()} |"


def written(page: str) -> str:
    """The page with the parts between its markers as they should be."""
    parts = {"worlds": worlds, "layouts": layouts}

    def part(found: re.Match[str]) -> str:
        opening, name, closing = found.groups()
        return f"{opening}\n" + "\n".join(parts[name]()) + f"\n\n{closing}"

    return MARKED.sub(part, page)


def draw(name: str) -> None:
    """Write the picture of an environment: its first moments."""
    from PIL import Image

    from crl.rendering import Scene

    env = envs.VectorEnv(create(name, {}), 1, seed=SEED, num_threads=1)
    env.reset(seed=SEED)
    for _ in range(5):
        env.step(np.zeros(env.action_space.shape))
    with Scene(env.task, [env.batch.get_model(0)], SIZE) as scene:
        picture = scene.draw(env.batch.state[0], env.places[1][0])
    env.close()
    Image.fromarray(picture).save(IMAGES / f"{name}.jpg", quality=QUALITY)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    if "--pictures" in sys.argv:
        IMAGES.mkdir(exist_ok=True)
        for old in IMAGES.glob("*.jpg"):
            old.unlink()
        for family in families():
            draw(family[0])
