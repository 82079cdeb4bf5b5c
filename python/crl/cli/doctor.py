"""`crl doctor`: what there is on this machine, and whether its physics is sound."""

import importlib.metadata
import os
import platform
from collections.abc import Iterator

import click

from crl.errors import MissingExtraError

EXTRAS = {
    "train": ("torch", "mujoco", "gymnasium", "safetensors", "PyYAML", "tensorboard"),
    "plot": ("matplotlib", "pillow"),
    "video": ("av",),
}
PHYSICS = ("mujoco", "gymnasium")


@click.command("doctor")
@click.option("--physics/--no-physics", default=True, show_default=True, help="Short rollouts of every environment.")
def command(physics: bool) -> None:
    """Say what is installed, what computes, what draws, and whether this MuJoCo does as known releases did.

    Exit code 1 where it does not.
    """
    for heading, text in (*_packages(), *_devices(), ("drawing", _drawing())):
        click.echo(f"{heading:10} {text}")
    if not physics or _versions(PHYSICS).keys() != set(PHYSICS):
        return
    from crl.envs.canary import check

    report = check()
    click.echo(f"{'physics':10} {report}")
    if report.changes:
        raise click.exceptions.Exit(1)


def _packages() -> Iterator[tuple[str, str]]:
    yield "crl", importlib.metadata.version("crl")
    yield "python", f"{platform.python_version()}, {platform.platform()}"
    for extra, packages in EXTRAS.items():
        found = _versions(packages)
        missing = [name for name in packages if name not in found]
        told = [", ".join(f"{name} {version}" for name, version in found.items())] if found else []
        if missing:
            told.append(f'no {", ".join(missing)}: pip install "crl[{extra}]"')
        yield extra, "; ".join(told)


def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _devices() -> Iterator[tuple[str, str]]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield "cpu", f"{cores} cores for this process"
    try:
        import torch
    except ImportError:
        return
    cards = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    yield "cuda", ", ".join(cards) or "none that PyTorch sees"


def _drawing() -> str:
    try:
        from crl.rendering import backend

        return backend()[0]
    except MissingExtraError as error:
        return str(error)
