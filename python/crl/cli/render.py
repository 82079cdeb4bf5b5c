"""`crl render`: what a policy does, as a video, a contact sheet or paths."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crl.cli import need_extra
from crl.errors import ConfigError

if TYPE_CHECKING:
    from crl.envs import EnvSpec
    from crl.recording import Recording

LONGEST_VIDEO = 250  # frames, unless --every says otherwise
EPISODES, PATHS = 4, 32
VISITED_ROWS = 200_000


@click.command("render")
@click.argument("run", required=False)
@click.option("--env", metavar="NAME", help="Environment to show. [the run's eval_env]")
@click.option("--layout", metavar="FILE", help="Maze to show it in: a text file, or a layout's name. [the run's]")
@click.option("--env-options", metavar="NAME=VALUE,...", help="Further options of the environment. [the run's]")
@click.option("--random", is_flag=True, help="Random actions, in place of a run's policy: needs no RUN.")
@click.option("--paths", is_flag=True, help="Paths from above and where the run's buffer has been; needs no OpenGL.")
@click.option("--episodes", type=click.IntRange(1, 256), help=f"Side by side. [{EPISODES}; with --paths {PATHS}]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of starts and goals.")
@click.option("--steps", type=click.IntRange(1), help="Longest episode. [the environment's]")
@click.option("--every", type=click.IntRange(1), help=f"Steps between frames. [for at most {LONGEST_VIDEO} frames]")
@click.option("--size", type=click.IntRange(32, 2048), default=240, show_default=True, help="Pixels of one episode.")
@click.option("--stochastic", is_flag=True, help="Sample actions instead of taking the mode.")
@click.option("--output", metavar="STEM", help="Path without extension. [RUN/videos/NAME-step_N, or NAME]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
def command(
    run: str | None,
    env: str | None,
    layout: str | None,
    env_options: str | None,
    random: bool,
    paths: bool,
    episodes: int | None,
    seed: int,
    steps: int | None,
    every: int | None,
    size: int,
    stochastic: bool,
    output: str | None,
    device: str,
) -> None:
    """Show what the newest policy of the run in directory RUN does: STEM.mp4, and STEM.png, a contact sheet.

    Each episode has a tile; its goal is a green sphere of the radius of success, and it is framed in green once it
    has been there. Mazes are seen from above. With --paths: STEM_paths.png, where episodes went.

    Example: crl render --env ant_maze --random
    """
    if run is None and not (random and env):
        raise ConfigError("give the directory of a run, or --env NAME --random.")
    need_extra("train", "torch", "mujoco", "gymnasium", "safetensors", "yaml")
    need_extra("plot", "matplotlib", "PIL")
    from crl import envs
    from crl.collector import UniformPolicy
    from crl.config import parsed_options
    from crl.evaluation import world_seed
    from crl.recording import record
    from crl.run import load_policy

    policy: object
    saved = None
    options: dict[str, Any] = {"layout": layout} if layout else {}
    if run is not None:
        changes = {"eval_env": env, "layout": layout, "env_options": env_options}
        given: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
        policy, settings, saved = load_policy(run, device=device, **given)
        env, options = settings.eval_env, settings.eval_env_kwargs
    else:
        options |= parsed_options(env_options or "")
    assert env is not None
    spec = _spec(env, options)
    if random:
        policy = UniformPolicy(spec.action_dim, (seed,))
    if paths and spec.goal_dim < 2:
        raise ConfigError(f"--paths: the goals of {spec.name} are no places in a plane; leave it out.")
    stem = Path(output) if output else _stem(run, saved, spec.name, random)
    stem.parent.mkdir(parents=True, exist_ok=True)
    worlds = envs.make(env, episodes or (PATHS if paths else EPISODES), seed=world_seed(seed), **options)
    try:
        episode = record(policy, worlds, seed=seed, steps=steps or spec.episode_length, deterministic=not stochastic)
    finally:
        worlds.close()
    last, reached = len(episode.state) - 1, int(episode.reached[-1].sum())
    click.echo(f"{spec.name}: {reached} of {len(episode.length)} episodes reached their goal within {last} steps")
    if paths:
        _draw_paths(episode, stem, None if random else saved)
    else:
        _draw_video(episode, stem, size, every or -(-last // LONGEST_VIDEO))


def _spec(name: str, options: dict[str, Any]) -> "EnvSpec":
    from crl import envs

    if envs.is_adapted(name):
        raise ConfigError(f"crl render draws the worlds of `crl envs`, and not those of other projects: got {name}.")
    try:
        return envs.spec(name, **options)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _stem(run: str | None, saved: Path | None, name: str, random: bool) -> Path:
    """Where pictures go that were given no place."""
    if run is None or saved is None:
        return Path(name)
    return Path(run, "videos", f"{name}-random" if random else f"{name}-{saved.name}")


def _draw_paths(episode: "Recording", stem: Path, saved: Path | None) -> None:
    from crl.paths import draw_paths
    from crl.run import load_buffer

    visited = None
    if (
        saved is not None
        and len(episode.mazes) < 2
        and not episode.task.spec.image
        and (saved / "buffer.crlb").is_file()
    ):
        visited = load_buffer(saved).sample(VISITED_ROWS, goal="random").goal
    picture = stem.with_name(f"{stem.name}_paths.png")
    draw_paths(episode, picture, visited=visited)
    click.echo(f"wrote {picture}")


def _draw_video(episode: "Recording", stem: Path, size: int, every: int) -> None:
    from importlib.util import find_spec

    from crl.recording import FRAMES_PER_SECOND, contact_sheet, frames, write_picture, write_video
    from crl.rendering import Scene

    with Scene(episode.task, episode.models, size) as scene:
        click.echo(f"rendering with {scene.backend}")
        sheet, video = stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}.mp4")
        write_picture(sheet, contact_sheet(episode, scene))
        click.echo(f"wrote {sheet}")
        if find_spec("av") is None:
            click.echo('no video: av is not installed: pip install "crl[video]"')
            return
        count = write_video(video, frames(episode, scene, every))
        speed = every * episode.task.spec.dt * FRAMES_PER_SECOND
        click.echo(f"wrote {video}: {count} frames, {speed:.3g} times as fast as the world")
