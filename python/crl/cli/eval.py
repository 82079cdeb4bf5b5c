"""`crl eval`: how good a run's policy is."""

import dataclasses
import json

import click

from crl.cli import need_extra


@click.command("eval")
@click.argument("run")
@click.option("--env", metavar="NAME", help="Environment to evaluate on. [the run's eval_env]")
@click.option("--layout", metavar="FILE", help="Maze to evaluate in: a text file, or a layout's name. [the run's]")
@click.option("--env-options", metavar="NAME=VALUE,...", help="Further options of the environment. [the run's]")
@click.option("--num-eval-episodes", type=click.IntRange(1), metavar="N", help="Episodes. [the run's]")
@click.option("--num-action-candidates", type=click.IntRange(1), metavar="K", help="Best of K actions. [the run's]")
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
    stochastic: bool,
    seed: int,
    device: str,
    as_json: bool,
) -> None:
    """Evaluate the newest checkpoint of the run in directory RUN: fresh worlds, one episode each."""
    need_extra("train", "torch", "mujoco", "gymnasium", "safetensors", "yaml")
    from crl.run import evaluate_run

    changes = {
        "eval_env": env,
        "layout": layout,
        "env_options": env_options,
        "num_eval_episodes": num_eval_episodes,
        "num_action_candidates": num_action_candidates,
        "device": device,
    }
    given = {name: value for name, value in changes.items() if value is not None}
    outcome = evaluate_run(run, seed=seed, deterministic=not stochastic, **given)
    low, high = outcome.success_interval
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(outcome)))
        return
    click.echo(f"success_rate    {outcome.success_rate:.3f}  [{low:.3f}, {high:.3f}] (95 % Wilson)")
    if outcome.success_rate_far is not None and outcome.success_interval_far is not None:
        low, high = outcome.success_interval_far
        far = f"{outcome.success_rate_far:.3f}  [{low:.3f}, {high:.3f}]"
        click.echo(f"  of far goals  {far} ({outcome.num_episodes_far} episodes)")
    click.echo(f"success_at_end  {outcome.success_at_end:.3f}")
    click.echo(f"time_at_goal    {outcome.time_at_goal:.1f} steps")
    click.echo(f"final_distance  {outcome.final_distance:.3f}")
    click.echo(f"episodes        {outcome.num_episodes}")
