"""What a run takes, counted from its settings: parameters, memory, and the matrix products of an update.

Nothing is made or measured here, so that a run which cannot fit is refused before it starts. `tests/test_plan.py` holds
every count to a real agent and buffer.

Letters: B rows of a batch, O observation, G goal, A action, R representation, W width, D depth, P parameters.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from crl import datasets, envs
from crl.bootstrap import NCE_WEIGHTS
from crl.config import LAYERS_PER_BLOCK, OF_BLOCKS, TrainConfig
from crl.envs import EnvSpec
from crl.errors import ConfigError
from crl.layer_sizes import Layer, flop, network_layers, parameters
from crl.memory import free_device_memory, free_memory

FLOAT = 4
"""Bytes of a weight, a gradient, a moment, an activation."""
BATCHES_AHEAD = 6
"""Batches that a loader for CUDA keeps: those filled ahead, the one on its way, the one in use."""
SHARE = 0.9
"""Of the free memory, what a proposal to make something smaller may use."""


@dataclass(frozen=True)
class Sizes:
    """What a run takes. Memory is in bytes."""

    parameters: Mapping[str, int]
    """By network."""
    flop: int
    """Of an update: see `of`."""
    lasting: Mapping[str, int]
    """On the device, as long as the run."""
    passing: Mapping[str, int]
    """On the device, one after the other; the largest counts."""
    host: Mapping[str, int]
    """In RAM whatever the device."""
    checkpoint: int
    """On the disk; `keep_checkpoints` of them stay, and one more while it is written."""
    device: str

    @property
    def on_device(self) -> int:
        """The most that the learner holds on its device at one time."""
        return sum(self.lasting.values()) + max(self.passing.values())

    @property
    def needs(self) -> dict[str, int]:
        """Bytes of RAM, and of VRAM where the device is CUDA's."""
        host = sum(self.host.values())
        return {"RAM": host + self.on_device} if self.device == "cpu" else {"RAM": host, "VRAM": self.on_device}

    def parts(self, kind: str) -> dict[str, int]:
        """What `needs[kind]` is made of, by name; of what is passing, only the largest is part of it."""
        learner = {**self.lasting, **self.passing}
        return learner if kind == "VRAM" else {**(learner if self.device == "cpu" else {}), **self.host}


def of(config: TrainConfig) -> Sizes:
    """Count what a run with the resolved `config` takes.

    FLOPs of an update are those of its matrix products and convolutions, 2 a multiplication: actor, phi and psi forward
    and backward; phi of the sampled actions forward and backward to its input alone, as its weights learn nothing
    there; and the product of all phi with all psi, where the energy takes one (`norm` on a CPU, `dot`, `cosine`). Other
    algorithms have critics or a model in their place, and pass the next state forward through actor and targets. Left
    out is what is a small share of them: LayerNorm, activations, the losses and Adam.

    Activations are those alive when the actor's backward pass begins (its own, psi's, and phi's of the sampled actions)
    or the critic's (phi's and psi's), whichever are more; both, where a CPU's threads take a side each. Those of a
    residual network in float32 stay for the next update, and phi has one place if its passes come in turn. They are
    counted in float32 at every precision, as LayerNorm and swish stay in it; bf16 has a copy of the weights besides.
    """
    spec = envs.spec(config.env, **config.env_kwargs)
    o, g, a, r = spec.observation_dim, spec.goal_dim, spec.action_dim, config.representation_dim
    rows, width, image = config.batch_size, config.width, spec.image
    layers = functools.partial(
        network_layers,
        config.network,
        width=width,
        image=image,
        encoder=config.image_encoder,
        fourier=config.fourier_features,
        recompute=config.recompute,
    )
    actor = layers(o + g, 2 * a, depth=config.actor_depth, images=2)
    critic = functools.partial(layers, depth=config.critic_depth)
    contrastive = config.algorithm == "crl"
    judges: dict[str, list[list[Layer]]] = {}
    """Networks beside the actor, by name; the first kind is what its actions pass through."""
    if contrastive:
        judges = {name: config.num_critics * [critic(n, r)] for name, n in (("phi", o + a), ("psi", g))}
    elif config.algorithm in ("sac", "td3"):
        judges = {"critics": config.num_critics * [critic(o + g + a, 1)]}
    elif config.algorithm == "forward_model":
        judges = {"model": [critic(o + a, 2 * g)]}
    learning = [network for networks in judges.values() for network in networks]
    passed = next(iter(judges.values()), [])[: 1 if config.algorithm == "td3" else None]
    followed = {"sac": learning, "td3": [actor, *learning]}.get(config.algorithm, [])
    if contrastive and config.objective in NCE_WEIGHTS:
        followed = [actor, *learning]
    bootstrapping = [actor, *learning] if followed else []
    count = {"actor": parameters(actor), **{name: sum(map(parameters, found)) for name, found in judges.items()}}
    total = sum(count.values()) + 1  # and the temperature

    work = sum(flop(network, rows, weights=True, inputs=False) for network in (actor, *learning))
    work += sum(flop(network, rows, weights=False, inputs=True) for network in passed)
    work += sum(2 * rows * layer.products for network in bootstrapping for layer in network)
    if config.recompute:
        dense = ([layer for layer in network if not layer.of_images] for network in (actor, *passed, *learning))
        again = (layer for network in dense for layer in network[1 : -1 - LAYERS_PER_BLOCK])
        work += 2 * rows * sum(layer.products for layer in again)
    # psi of what was commanded, which learns where it is a negative.
    of_commanded = judges.get("psi", []) if "desired_goal" in _stores(config) else []
    if config.commanded_negatives:
        work += sum(flop(network, rows, weights=True, inputs=False) for network in of_commanded)
    else:
        work += sum(2 * rows * layer.products for network in of_commanded for layer in network)
    if contrastive and config.energy in ("dot", "cosine"):
        work += 3 * 2 * rows * rows * r

    def kept(*networks: list[Layer]) -> int:
        return sum(layer.kept for network in networks for layer in network)

    encoded = kept(*judges.get("psi", []), *of_commanded)
    acting = kept(actor) + encoded + sum(layer.kept_frozen for network in passed for layer in network)
    logits = 4 * rows * contrastive  # their softmax, and the gradients of both
    judging = kept(*learning, *of_commanded) + logits
    alive = max(acting, judging)
    if config.device == "cpu" and config.num_threads > 1:
        alive = acting + judging - encoded
    elif config.network == "residual" and config.precision != "bf16" and not image:
        alive = kept(actor) + judging
    stores = _stores(config)
    stored_goal = g * ("desired_goal" in stores)
    given = o + a + g + (o + g + 1 + stored_goal) * bool(followed)

    weights = FLOAT * total
    averaged = FLOAT * count["actor"] * (config.actor_ema > 0)
    targets = FLOAT * sum(map(parameters, followed))
    state = 3 * weights + averaged + targets
    stored, filled = _buffer(config, spec)
    row = o + FLOAT * a if image else FLOAT * (o + a + g + stored_goal)
    saved_rows = filled * (1 + row + ("terminal" in stores))
    passing = {
        "activations of an update": FLOAT * rows * (alive + given) + (2 * total if config.precision == "bf16" else 0),
        "a checkpoint's copy": state,
    }
    lasting = {
        "weights": weights,
        "gradients": weights,
        "Adam's moments": 2 * weights,
        "averaged actor": averaged,
        "targets": targets,
        "collector's weights": (weights - FLOAT) * config.asynchronous,
    }
    host = {"buffer": stored}
    if config.dataset:
        (passing if config.device == "cpu" else host)["data set, as it is read"] = saved_rows
        saved_rows = 0
    if config.device != "cpu":
        batch = rows * (2 * o + FLOAT * a if image else FLOAT * given)
        lasting["batches"] = host["batches"] = BATCHES_AHEAD * batch
        host["a checkpoint's copy"] = state
    return Sizes(
        parameters=count,
        flop=work,
        lasting={name: size for name, size in lasting.items() if size},
        passing=passing,
        host=host,
        checkpoint=state + saved_rows,
        device=config.device,
    )


def _buffer(config: TrainConfig, spec: EnvSpec) -> tuple[int, int]:
    """Bytes that the rows of this run fill of its buffer, and the rows."""
    if config.dataset:
        worlds, rows = 1, max(2, datasets.find(config.dataset).num_rows)
    else:
        worlds = config.num_envs
        steps = math.ceil(config.total_env_steps / (worlds * config.unroll_length)) * config.unroll_length
        rows = max(2, min(config.buffer_capacity // worlds, steps))
    two, three = _small_buffers(spec, worlds, _stores(config))
    return two + (rows - 2) * (three - two), worlds * rows


def _stores(config: TrainConfig) -> tuple[str, ...]:
    from crl import algorithms

    return algorithms.of(config).stores(config)


@functools.cache
def _small_buffers(spec: EnvSpec, worlds: int, stores: tuple[str, ...]) -> tuple[int, int]:
    """Bytes of buffers of two and of three rows a world. A further row takes as much as the third."""
    from crl.run import new_buffer

    two, three = (new_buffer(spec, worlds, worlds * rows, stores=stores).nbytes for rows in (2, 3))
    return two, three


def free(sizes: Sizes) -> dict[str, int]:
    """Bytes that are free of every kind of memory that the run needs."""
    return {kind: free_memory() if kind == "RAM" else free_device_memory(sizes.device) for kind in sizes.needs}


def check_fits(config: TrainConfig) -> None:
    """Refuse a run that cannot fit into the memory that is free now.

    Args:
        config: resolved.
    Raises:
        ConfigError: naming what is needed and free, what takes most, and the settings with which it would fit.
    """
    sizes = of(config)
    available = free(sizes)
    for kind, needed in sizes.needs.items():
        if needed <= available[kind]:
            continue
        largest = sorted(sizes.parts(kind).items(), key=lambda part: -part[1])[:3]
        told = ", ".join(f"{name} {readable(size)}" for name, size in largest)
        raise ConfigError(
            f"the run needs {readable(needed)} of {kind}, and {readable(available[kind])} are free. "
            f"Most of it: {told}. " + _what_would_fit(config, available)
        )


def _what_would_fit(config: TrainConfig, available: Mapping[str, int]) -> str:
    def fits(smaller: TrainConfig) -> bool:
        return all(size <= SHARE * available[kind] for kind, size in of(smaller).needs.items())

    ways = list(filter(None, (_largest(config, make, fits) for make in _SMALLER)))
    if ways:
        return f"It would fit with {', or with '.join(ways)}."
    together = _largest(config, _all_smaller, fits)
    return f"It would fit with {together}." if together else "No smaller one would fit either."


_Change = dict[str, Any]
"""Settings, all of them whole numbers."""


def _largest(
    config: TrainConfig, make: Callable[[TrainConfig, float], _Change], fits: Callable[[TrainConfig], bool]
) -> str | None:
    """The settings of the largest share of `config` that fits, as options; None if none does. By bisection."""
    low, high = 0.0, 1.0
    if not fits(dataclasses.replace(config, **make(config, low))):
        return None
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(dataclasses.replace(config, **make(config, middle))) else (low, middle)
    changed = make(config, low)
    depths = [changed.get(name) for name in ("actor_depth", "critic_depth")]
    if depths[0] == depths[1] is not None:
        changed = {**{name: value for name, value in changed.items() if "_depth" not in name}, "depth": depths[0]}
    return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in changed.items())


def _less_buffer(config: TrainConfig, share: float) -> _Change:
    if config.dataset:
        return {}
    most = min(config.buffer_capacity, config.total_env_steps + config.num_envs * config.unroll_length)
    return {"buffer_capacity": max(3 * config.num_envs, _round(most * share))}


def _less_batch(config: TrainConfig, share: float) -> _Change:
    return {"batch_size": max(2, _round(config.batch_size * share))}


def _less_depth(config: TrainConfig, share: float) -> _Change:
    """Depths, by the one option where they are one."""
    step = LAYERS_PER_BLOCK if config.network in OF_BLOCKS else 1
    deepest = max(config.actor_depth, config.critic_depth)
    depth = max(step, int(deepest * share) // step * step)
    names = ("actor_depth", "critic_depth")
    smaller = {name: min(getattr(config, name), depth) for name in names}
    return {name: value for name, value in smaller.items() if value != getattr(config, name)}


def _all_smaller(config: TrainConfig, share: float) -> _Change:
    return {name: value for make in _SMALLER for name, value in make(config, share).items()}


_SMALLER = (_less_buffer, _less_batch, _less_depth)


def _round(value: float) -> int:
    """Down to two significant digits."""
    digits = max(0, len(str(int(value))) - 2)
    return int(round(value // 10**digits) * 10**digits)


def readable(size: float) -> str:
    """Bytes in words: 12.3 MB, 4.56 GB."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size / 1e3:.3g} kB"
