"""`crl collect`: a data set to learn from without a world, of any policy."""

import functools
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from types import SimpleNamespace
from typing import Any

import click
from rich.progress import Progress

from crl.cli import need_extra
from crl.cli.train import Count
from crl.console import plain_console
from crl.errors import ConfigError

WORLDS, ADAPTED_WORLDS = 64, 16
"""By default; fewer where they are stepped in Python."""


@click.command("collect")
@click.argument("run", required=False)
@click.option("--env", metavar="NAME", help="Environment, where no RUN is given. [that which the run learns in]")
@click.option("--layout", metavar="FILE", help="Its maze: a text file, or a layout's name. [the environment's own]")
@click.option("--env-options", metavar="NAME=VALUE,...", help="Further options of the environment. [defaults]")
@click.option("--policy", type=click.Choice(("stochastic", "deterministic", "uniform")),
              help="Actions: samples or modes of RUN's policy, or uniform. [samples; no RUN: uniform]")  # fmt: skip
@click.option("--checkpoint", "step", type=Count(), metavar="N", help="RUN's checkpoint step_N. [the newest]")
@click.option("--steps", type=Count(), required=True, metavar="N", help="Environment steps, all worlds together.")
@click.option("--num-envs", type=click.IntRange(1),
              help=f"Worlds. [{WORLDS}; of other projects' environments, {ADAPTED_WORLDS}]")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of starts and goals.")
@click.option("--output", required=True, metavar="FILE", help="The data set; must be new.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
def command(
    run: str | None,
    env: str | None,
    layout: str | None,
    env_options: str | None,
    policy: str | None,
    step: int | None,
    steps: int,
    num_envs: int | None,
    seed: int,
    output: str,
    device: str,
) -> None:
    """Write what the policy of the run in directory RUN sees and does in its environment, or uniform actions lead to.

    `crl train --dataset FILE` learns from it. Rows are in the order of time, a last one of every episode included.

    Example: crl collect --env point_maze --steps 200_000 --output walks.safetensors
    """
    if (run is None) == (env is None):
        raise ConfigError("give either the directory of a run, or --env NAME.")
    if run is None and (policy in ("stochastic", "deterministic") or step is not None):
        raise ConfigError("--policy stochastic or deterministic and --checkpoint are of a run: give its directory.")
    if run is not None and (layout or env_options):
        raise ConfigError("--layout and --env-options go with --env: a run has its own.")
    need_extra("train", "torch", "mujoco", "gymnasium", "safetensors", "yaml")
    from crl import datasets, envs
    from crl.collector import UniformPolicy
    from crl.run import load_policy

    datasets.check_new(output)
    acting: Any
    if run is None:
        assert env is not None
        name, options, source = env, _options(layout, env_options), "uniform actions"
    else:
        acting, settings, saved = load_policy(run, step, device=device)
        name, options, source = settings.env, settings.env_kwargs, f"{run} {saved.name}, {policy or 'stochastic'}"
    count = num_envs or (ADAPTED_WORLDS if envs.is_adapted(name) else WORLDS)
    try:
        spec = envs.spec(name, **options)
        if steps < 2 * count:
            raise ConfigError(f"--steps must be at least {2 * count}, two in each of {count} worlds, got {steps}.")
        worlds = envs.make(name, count, seed=seed, **options)
    except ValueError as error:  # a ConfigError too
        raise ConfigError(str(error)) from None
    if run is None or policy == "uniform":
        acting, source = UniformPolicy(spec.action_dim, (seed,)), "uniform actions"
    elif policy == "deterministic":
        acting = SimpleNamespace(act=functools.partial(acting.act, deterministic=True))
    with closing(worlds), _progress(steps) as told:
        columns = datasets.collect(worlds, acting, steps, seed=seed, told=told)
    datasets.write(output, columns, env=spec.name, env_options=options, policy=source, worlds=count, seed=seed)
    rows, trajectories = len(columns["episode_start"]), int(columns["episode_start"].sum())
    click.echo(f"{output}: {rows:,} rows in {trajectories:,} trajectories of {spec.name}, {source}")


def _options(layout: str | None, env_options: str | None) -> dict[str, Any]:
    """The environment's, as a run with the same settings has them."""
    from crl.config import parsed_options
    from crl.envs.layouts import lasting

    options = parsed_options(env_options or "")
    try:
        return {**options, "layout": lasting(layout)} if layout else options
    except ValueError as error:
        raise ConfigError(str(error)) from None


@contextmanager
def _progress(steps: int) -> Iterator[Callable[[int], None]]:
    """On a terminal a bar; called with the steps just made."""
    console = plain_console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("collecting", total=steps)
        yield lambda made: bar.advance(task, made)
