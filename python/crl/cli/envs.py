"""`crl envs`: what there is to learn."""

import textwrap

import click
from rich.table import Table

from crl.envs import EnvSpec

LINE = 100  # characters


@click.command("envs")
@click.argument("name", required=False)
@click.option("--layout", metavar="FILE", help="Maze in place of NAME's own: a text file, or a layout's name.")
def command(name: str | None, layout: str | None) -> None:
    """List the environments, or describe the one called NAME."""
    from crl import envs
    from crl.console import plain_console
    from crl.errors import ConfigError

    console = plain_console()
    if layout is not None and name is None:
        raise ConfigError("--layout needs the NAME of an environment to put it in.")
    if name is not None:
        try:
            spec = envs.spec(name, **({"layout": layout} if layout else {}))
        except ValueError as error:
            raise ConfigError(str(error)) from None
        click.echo(described(spec))
        return
    specs = [envs.spec(known) for known in envs.names()]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("name", no_wrap=True, min_width=max(len(spec.name) for spec in specs))  # never cut
    for column in ("observation", "action", "goal", "episode", "within"):
        table.add_column(column, justify="right")
    for spec in specs:
        dims = (spec.observation_dim, spec.action_dim, spec.goal_dim, spec.episode_length)
        table.add_row(spec.name, *map(str, dims), f"{spec.success_threshold:g}")
    console.print(table)


def described(spec: EnvSpec) -> str:
    """All that is known of an environment, for a person to read."""
    lines = [spec.name, *([spec.description] if spec.description else []), ""]
    facts = spec.facts()
    indent = max(map(len, facts)) + 2
    for heading, text in facts.items():
        lines += textwrap.wrap(f"{heading:{indent}}{text}", LINE, subsequent_indent=" " * indent)
    return "\n".join(lines)
