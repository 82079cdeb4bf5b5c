"""`crl train`: options are made from the settings of TrainConfig, so that each is also a key of the config file."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from types import FrameType
from typing import Any

import click

from crl.cli import need_extra
from crl.config import AUTO, SETTINGS, TrainConfig, file_key, from_mapping, read_settings, setting_type
from crl.presets import DEFAULTS
from crl.ranks import join, leads

FORWARDED_WITHIN = 3.0
"""Seconds in which a second signal is the first one, passed on by torchrun: the terminal has sent it to all."""


class GroupedCommand(click.Command):
    """Shows options under the headings given by their `group`."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        shown = [(getattr(param, "group", "Other"), param.get_help_record(ctx)) for param in self.get_params(ctx)]
        for group, records in groupby(((group, record) for group, record in shown if record), key=lambda pair: pair[0]):
            with formatter.section(group):
                formatter.write_dl([record for _, record in records])


class Count(click.ParamType):  # type: ignore[type-arg]  # generic only in some versions of click
    """A whole number, also as 1e6 or 1_000_000."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return int(value)
        except ValueError:
            with contextlib.suppress(ValueError, OverflowError):
                if (number := float(value)).is_integer():
                    return int(number)
            self.fail(f"{value!r} is not a whole number.", param, ctx)


class GroupedOption(click.Option):
    """An option with a heading."""

    def __init__(self, *args: Any, group: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group


def _option(name: str) -> GroupedOption:
    """The command-line option of one setting. Its default is None: not given."""
    setting, key = SETTINGS[name], file_key(name).replace("_", "-")
    value = DEFAULTS.get(name) if setting.default is AUTO else setting.default
    default = "" if value is None else f" [{value}]"
    text = setting.metadata["help"] + ("" if setting.metadata["help"].endswith("]") else default)
    if setting_type(name) is bool:
        opposite = "sync" if key == "async" else f"no-{key}"
        return GroupedOption([name, f"--{key}/--{opposite}"], default=None, help=text, group=setting.metadata["group"])
    choices = setting.metadata["choices"]
    kind: Any = {int: Count(), float: float, str: str}[setting_type(name)]
    return GroupedOption(
        [name, f"--{key}"],
        type=click.Choice(choices) if choices else kind,
        default=None,
        help=text,
        metavar=None if choices else {"int": "N", "float": "X", "str": "NAME"}[setting_type(name).__name__],
        group=setting.metadata["group"],
    )


def setting_options() -> list[click.Parameter]:
    """An option for every setting, in the order of the settings."""
    return [_option(name) for name in SETTINGS]


def settings_from(config_file: str | None, given: Mapping[str, Any]) -> TrainConfig:
    """The settings in YAML file `config_file`, if there is one, and over them those `given` as options."""
    from_file = read_settings(config_file) if config_file else {}
    return from_mapping({**from_file, **{file_key(name): value for name, value in given.items()}}, origin="options")


@contextlib.contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event set by the first SIGINT, SIGTERM or (a terminal gone) SIGHUP; the second one acts as usual."""
    stop = threading.Event()
    second_from = 0.0
    names = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
    usual = {number: signal.getsignal(number) for name in names if (number := getattr(signal, name, None))}

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal second_from
        if not second_from:
            stop.set()
            second_from = time.monotonic() + FORWARDED_WITHIN * ("TORCHELASTIC_RUN_ID" in os.environ)
            with contextlib.suppress(OSError):  # the terminal may be gone
                if leads():
                    click.echo("stopping: saving the run (once more to stop at once)", err=True)
        elif time.monotonic() >= second_from:
            for known, handler in usual.items():
                signal.signal(known, handler)
            signal.raise_signal(number)

    for number in usual:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


config_option = click.option(
    "--config",
    "config_file",
    metavar="FILE",
    cls=GroupedOption,
    group="Run",
    help="YAML file of settings; options given here override it.",
)


@click.command("train", cls=GroupedCommand)
@config_option
@click.option(
    "--resume",
    metavar="RUN",
    cls=GroupedOption,
    group="Run",
    help="Go on with the run in this directory, from its newest checkpoint.",
)
@click.option("--dry-run", is_flag=True, cls=GroupedOption, group="Run",
              help="Show the resolved settings and stop.")  # fmt: skip
def command(config_file: str | None, resume: str | None, dry_run: bool, **options: Any) -> None:
    """Train a goal-reaching agent by contrastive RL.

    Settings left out are chosen for the environment and the device, and printed with the reason. Precedence: option,
    --config FILE, --preset, the environment's recipe, sizes for the device.

    Example: crl train --env ant_maze --depth 256
    """
    given = {name: value for name, value in options.items() if value is not None}
    if resume is not None and config_file is not None:
        raise click.UsageError("--resume takes its settings from the run: leave --config out.")
    settings = settings_from(config_file, given)
    need_extra("train", "torch", "mujoco", "gymnasium", "safetensors", "yaml")

    from crl import run, trainer
    from crl.console import plain_console, settings_table

    if dry_run:
        with join() as ranks:
            resolved = run.resolve(run.reopen(Path(resume), given) if resume else settings, ranks)
        if leads():
            settings_table(plain_console(), resolved)
        return
    with stop_on_signals() as stop:
        if resume is not None:
            result = trainer.train(resume=resume, stop=stop, **given)
        else:
            result = trainer.train(settings, stop=stop)
    if result.interrupted:
        if leads():
            way_on = f"crl train --resume {result.run_dir}"
            made = f"{result.env_steps:,} steps" if result.env_steps else f"{result.updates:,} updates"
            click.echo(f"stopped at {made}; go on with: {way_on}", err=True)
        sys.exit(130)
    if leads():
        steps = f"{result.env_steps:,} steps, " if result.env_steps else ""
        click.echo(f"done: {steps}{result.updates:,} updates in {Path(result.run_dir)}")


# The groups in the order of the settings, then Run's file options.
command.params = setting_options() + command.params
