"""`crl plan`: what a run would take, before anything starts."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import JustifyMethod
from rich.table import Table

from crl.cli import need_extra
from crl.cli.train import GroupedCommand, GroupedOption, config_option, setting_options, settings_from
from crl.config import TrainConfig, to_mapping
from crl.errors import ConfigError
from crl.files import write_text

if TYPE_CHECKING:
    from crl.forecast import Forecast
    from crl.sizes import Sizes

Line = tuple[str, str, str]
"""What, how much, and a remark."""


@click.command("plan", cls=GroupedCommand)
@config_option
@click.option("--measure/--no-measure", default=True, cls=GroupedOption, group="Run",
              help="Time updates and worlds for a few seconds; else count only.")  # fmt: skip
@click.option("--json", "json_file", metavar="FILE", cls=GroupedOption, group="Run",
              help="All figures, with settings and machine.")  # fmt: skip
def command(config_file: str | None, measure: bool, json_file: str | None, **options: Any) -> None:
    """Say what `crl train` with the same options would take: parameters, memory, operations, hours.

    Counted first. Then a few updates on random rows and a second of the real worlds are timed, from which follow
    updates and env steps a second, the time of a round, and that of the whole run, evaluations included. What cannot
    fit into the memory that is free now is refused, with the settings that would.

    Example: crl plan --env ant_maze --depth 256
    """
    if json_file is not None and not Path(json_file).absolute().parent.is_dir():
        raise ConfigError(f"{json_file} cannot be written: there is no such directory.")
    settings = settings_from(config_file, {name: value for name, value in options.items() if value is not None})
    need_extra("train", "torch", "mujoco", "gymnasium", "safetensors", "yaml")

    from crl import run, sizes
    from crl.bench.machine import machine_facts
    from crl.console import plain_console, print_table

    console = plain_console()
    config = run.resolve(settings).config
    counted = sizes.of(config)
    print_table(console, _table(_counted(config, counted)))
    sizes.check_fits(config)
    found: dict[str, Any] = {
        "machine": machine_facts(),
        "settings": to_mapping(config),
        "counted": {**dataclasses.asdict(counted), "needs": counted.needs},
    }
    if measure:
        from crl import forecast

        measured = forecast.measure(config)
        print_table(console, _table(_measured(config, measured)))
        found["measured"] = dataclasses.asdict(measured)
    if json_file is not None:
        write_text(json_file, json.dumps(found, indent=1) + "\n")


def _counted(config: TrainConfig, counted: "Sizes") -> Iterator[Line]:
    from crl import sizes
    from crl.sizes import readable

    networks = ", ".join(f"{name} {_number(count)}" for name, count in counted.parameters.items())
    depths = {config.actor_depth, config.critic_depth}
    depth = f"depth {depths.pop()}" if len(depths) == 1 else f"depths {config.actor_depth} and {config.critic_depth}"
    yield "run", config.env, f"{depth}, width {config.width}, batch {config.batch_size}, {config.precision}"
    yield "parameters", _number(sum(counted.parameters.values())), networks
    yield "an update", f"{_number(counted.flop)}FLOP", "matrix products"
    free = sizes.free(counted)
    for kind, needed in counted.needs.items():
        yield kind, readable(needed), f"{readable(free[kind])} are free"
        for name, size in counted.parts(kind).items():
            yield f"  {name}", readable(size), "for a while; the larger counts" if name in counted.passing else ""
    disk = readable((config.keep_checkpoints + 1) * counted.checkpoint)
    yield "a checkpoint", readable(counted.checkpoint), f"on the disk, {disk} with those kept"


def _measured(config: TrainConfig, measured: "Forecast") -> Iterator[Line]:
    from crl.console import duration
    from crl.sizes import readable

    deepest = max(config.actor_depth, config.critic_depth)
    depths = " and ".join(map(str, measured.depths))
    how = "" if deepest in measured.depths else f"extrapolated from depths {depths}"
    yield "updates a second", f"{measured.updates_per_second:.3g}", how
    worlds = config.num_eval_episodes if config.dataset else config.num_envs
    doing = "evaluating" if config.dataset else "collecting"
    yield "env steps a second", f"{measured.env_steps_per_second:,.0f}", f"while {doing}, {worlds} worlds"
    yield "the worlds", readable(measured.worlds), "of RAM, besides"
    updates = config.updates_per_collect
    learning = f"{updates:,} updates {_seconds(updates * measured.update)}"
    if not config.dataset:
        collecting = f"{config.num_envs * config.unroll_length:,} env steps {_seconds(measured.collect)}"
        learning = f"{collecting}{' beside' if config.asynchronous else ','} {learning}"
    yield "a round", _seconds(measured.round), learning
    yield "an evaluation", _seconds(measured.evaluation), f"{config.num_eval_episodes} episodes"
    length = f"{config.total_updates:,} updates" if config.dataset else f"{config.total_env_steps:,} env steps"
    yield "the whole run", duration(measured.total), f"{length}, without checkpoints"


def _table(lines: Iterator[Line]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    columns: tuple[JustifyMethod, ...] = ("left", "right", "left")
    for justify in columns:
        table.add_column(justify=justify, no_wrap=True)
    for line in lines:
        table.add_row(*line)
    return table


def _number(count: float) -> str:
    """12.3 k, 51 M, 103 G."""
    for unit, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count:g} "


def _seconds(seconds: float) -> str:
    from crl.console import duration

    return f"{seconds:.3g} s" if seconds < 10 else duration(seconds)


# Run's options come last, as those of `crl train` do.
command.params = setting_options() + command.params
