"""`crl eval`: how good a run's policy is."""

import dataclasses
import json
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from crl.cli import need_extra

if TYPE_CHECKING:
    from crl.evaluation import Evaluation


@click.command("eval")
@click.argument("run")
@click.option("--env", metavar="NAME", help="Environment to evaluate on. [the run's eval_env]")
@click.option("--layout", metavar="FILE", help="Maze to evaluate in: a text file, or a layout's name. [the run's]")
@click.option("--env-options", metavar="NAME=VALUE,...", help="Further options of the environment. [the run's]")
@click.option("--num-eval-episodes", type=click.IntRange(1), metavar="N", help="Episodes. [the run's]")
@click.option("--num-action-candidates", type=click.IntRange(1), metavar="K", help="Best of K actions. [the run's]")
@click.option(
    "--perturb",
    "perturbed",
    multiple=True,
    metavar="NAME=NUMBER,...",
    help="Also in another world: friction=1.5,mass=0.8 (factors), start-shift=0.2 (m), colour=0.3 (of images).",
)
@click.option("--probes", is_flag=True, help="Also success by the length of the way, for goals all over a maze.")
@click.option("--stochastic", is_flag=True, help="Sample actions instead of taking the mode.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of starts and goals.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    run: str,
    env: str | None,
    layout: str | None,
    env_options: str | None,
    num_eval_episodes: int | None,
    num_action_candidates: int | None,
    perturbed: tuple[str, ...],
    probes: bool,
    stochastic: bool,
    seed: int,
    device: str,
    as_json: bool,
) -> None:
    """Evaluate the newest checkpoint of the run in directory RUN: fresh worlds, one episode each.

    With --perturb, which can be given several times, a table: the worlds as they are, then each perturbation, with the
    same starts and goals.
    """
    need_extra("train", "torch", "mujoco", "gymnasium", "safetensors", "yaml")
    from crl.envs.perturbations import Perturbation
    from crl.run import check_perturbations, evaluate_run, probe_run

    changes: dict[str, Any] = {
        "eval_env": env,
        "layout": layout,
        "env_options": env_options,
        "num_eval_episodes": num_eval_episodes,
        "num_action_candidates": num_action_candidates,
        "device": device,
    }
    given = {name: value for name, value in changes.items() if value is not None}
    perturbations = [Perturbation.parse(text) for text in perturbed]
    if perturbations:
        check_perturbations(run, perturbations, **given)
    evaluated = partial(evaluate_run, run, seed=seed, deterministic=not stochastic, **given)
    probed = probe_run(run, seed=seed, **given) if probes else None
    outcome = evaluated()
    others = [evaluated(perturbation=perturbation) for perturbation in perturbations]
    if as_json:
        rows = [
            {"perturbation": perturbation.changes(), **dataclasses.asdict(other)}
            for perturbation, other in zip(perturbations, others, strict=True)
        ]
        further: dict[str, Any] = {"perturbed": rows} if rows else {}
        if probed is not None:
            further["probes"] = dataclasses.asdict(probed)
        click.echo(json.dumps({**dataclasses.asdict(outcome), **further}))
        return
    if probed is not None:
        click.echo(f"probes          {probed}")
    if perturbations:
        _table(["none", *map(str, perturbations)], [outcome, *others])
        return
    low, high = outcome.success_interval
    click.echo(f"success_rate    {outcome.success_rate:.3f}  [{low:.3f}, {high:.3f}] (95 % Wilson)")
    if outcome.success_rate_far is not None and outcome.success_interval_far is not None:
        low, high = outcome.success_interval_far
        far = f"{outcome.success_rate_far:.3f}  [{low:.3f}, {high:.3f}]"
        click.echo(f"  of far goals  {far} ({outcome.num_episodes_far} episodes)")
    click.echo(f"success_at_end  {outcome.success_at_end:.3f}")
    click.echo(f"time_at_goal    {outcome.time_at_goal:.1f} steps")
    click.echo(f"final_distance  {outcome.final_distance:.3f}")
    click.echo(f"episodes        {outcome.num_episodes}")


def _table(names: Sequence[str], outcomes: "Sequence[Evaluation]") -> None:
    """A row for each world, of as many episodes."""
    from rich.table import Table

    from crl.console import plain_console, print_table

    far = outcomes[0].success_rate_far is not None
    rates = ["success_rate", "of far goals"] if far else ["success_rate"]
    table = Table(box=None, pad_edge=False, header_style="bold", caption_justify="left")
    table.add_column("perturbation")
    for column in (*rates, "success_at_end", "time_at_goal", "final_distance"):
        table.add_column(column, justify="right")
    for name, outcome in zip(names, outcomes, strict=True):
        table.add_row(
            name,
            _share(outcome.success_rate, outcome.success_interval),
            *([_share(outcome.success_rate_far, outcome.success_interval_far)] if far else []),
            f"{outcome.success_at_end:.3f}",
            f"{outcome.time_at_goal:.1f} steps",
            f"{outcome.final_distance:.3f}",
        )
    episodes = outcomes[0].num_episodes
    goals = f", {outcomes[0].num_episodes_far} of them with far goals" if far else ""
    table.caption = f"{episodes} episodes a row{goals}; in brackets 95 % Wilson intervals"
    print_table(plain_console(), table)


def _share(rate: float | None, interval: tuple[float, float] | None) -> str:
    return "" if rate is None or interval is None else f"{rate:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"
