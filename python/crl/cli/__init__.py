"""The command line: `crl VERB`. Each verb is a module of this package, imported when it is used."""

import importlib
import importlib.util
import os
from typing import Any

import click

from crl.errors import CheckpointError, ConfigError, MissingExtraError, RankError, nearest

VERBS = {
    "train": "Train an agent, or go on with a run.",
    "sweep": "Train over a grid of settings and seeds.",
    "plan": "What a run would take: memory, operations, hours.",
    "collect": "Write a data set: what a policy saw and did.",
    "eval": "Evaluate a run's policy.",
    "envs": "List the environments, or describe one.",
    "render": "Show a policy: video, contact sheet, paths.",
    "analyze": "Look into the networks of runs: maps, probes, ranks.",
    "plot": "Plot the curves of one or several runs.",
    "report": "What runs have shown, as one page.",
    "lab": "Small worlds in which exploration can be watched.",
    "doctor": "What is installed here, and whether the physics is sound.",
    "bench": "Measure speed, beside others.",
}

# PyTorch's idle OpenMP threads spin for their next task and so take cores from the physics. A short spin costs
# nothing alone and is worth twice the speed beside a busy neighbour. "active" is for `--async`: without it the spin
# is ten times as short once there are more threads than cores (docs/performance.md). Read at library load.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
    os.environ.update(OMP_WAIT_POLICY="active", GOMP_SPINCOUNT="1000")


class _Missing(click.ClickException):
    """One line, without the usage that a wrong option gets."""

    exit_code = 2


class Verbs(click.Group):
    """Loads a verb's module when asked for it, names near misses, and turns a user's errors into one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"crl.cli.{cmd_name}").command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in VERBS:
            raise click.UsageError(f"there is no command {args[0]!r}.{nearest(args[0], VERBS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            raise click.UsageError(str(error)) from None
        except MissingExtraError as error:
            raise _Missing(str(error)) from None
        except BrokenPipeError:
            raise  # click ends quietly when nobody reads any more
        except (CheckpointError, RankError, OSError) as error:
            raise click.ClickException(str(error)) from None
        except KeyboardInterrupt:
            raise click.exceptions.Exit(130) from None
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            first_line = str(error).splitlines()[0] if str(error) else "out of memory"
            advice = "make depth, width, batch_size, num_envs or buffer_capacity smaller"
            raise click.ClickException(f"there is not enough memory for this run ({first_line}): {advice}.") from None


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="crl")
def main() -> None:
    """Contrastive reinforcement learning: goal-reaching agents that learn without rewards.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted (state saved).
    """


def _out_of_memory(error: MemoryError | RuntimeError) -> bool:
    """Python's and NumPy's error, and PyTorch's, which is a RuntimeError of its own kind on CUDA alone."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in ("can't allocate", "out of memory"))


def need_extra(extra: str, *modules: str) -> None:
    """Raise MissingExtraError, saying what to install, unless all `modules` can be found."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(f'{", ".join(missing)} is not installed: pip install "crl[{extra}]"')
