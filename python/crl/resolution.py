"""Filling what a run's settings leave open, and refusing those that contradict each other.

A setting left at `AUTO` is filled in this order of precedence: what the user set, the preset (a publication's values),
the recipe of the environment (values measured to learn it well), the sizes that suit the device, the published default.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crl.config import (
    AUTO,
    COLLECTING,
    OF_BLOCKS,
    ROWS_TO_LEARN,
    SETTINGS,
    TrainConfig,
    check_depth,
    parsed_options,
)
from crl.errors import ConfigError
from crl.presets import (
    ALGORITHM_DEFAULTS,
    DATASET_SIZES,
    DEFAULTS,
    IMAGE_SIZES,
    OF_ALGORITHMS,
    RECIPES,
    adapted_recipe,
    device_sizes,
    preset,
)
from crl.publications import OF_IMAGES, PUBLICATIONS

if TYPE_CHECKING:
    from crl.envs import EnvSpec


@dataclass(frozen=True)
class Resolved:
    """A config without AUTO settings (but `run_dir`), and for each setting the reason for its value."""

    config: TrainConfig
    sources: Mapping[str, str]


def resolve(config: TrainConfig, *, device: str, num_cores: int) -> Resolved:
    """Fill every AUTO setting of `config` for `device` ("cpu", "cuda" or "cuda:N"), as the module's docstring says.

    What has no meaning stays AUTO: with a data set `COLLECTING`, without one total_updates.

    Raises:
        ConfigError: on an unknown environment, an impossible depth, or sizes that contradict each other.
    """
    from crl import envs
    from crl.envs.layouts import lasting

    values = {name: getattr(config, name) for name in SETTINGS}
    sources = {name: "default" if values[name] == setting.default else "set" for name, setting in SETTINGS.items()}
    offline = bool(config.dataset)
    meaningless = COLLECTING if offline else ("total_updates",)
    sources |= {name: "not of this run" for name in meaningless if values[name] is AUTO}

    chosen = preset(config.preset) if config.preset != "default" else {}
    published = chosen.get("algorithm", (DEFAULTS["algorithm"], ""))[0]
    algorithm = config.algorithm or published
    # What the algorithm does not read is as if nobody had set it, and then held against what was set.
    unread = [name for name, readers in OF_ALGORITHMS.items() if algorithm not in readers]
    values |= {name: SETTINGS[name].default for name in unread}

    def fill(settings: Mapping[str, Any], source: str) -> None:
        for name, value in settings.items():
            if values[name] is AUTO and name not in meaningless:
                values[name], sources[name] = value, source

    try:
        spec = envs.spec(config.env, **config.env_kwargs)
        values["env"] = spec.name
        values["eval_env"] = spec.name
        if config.eval_env is not AUTO:
            values["eval_env"] = envs.spec(config.eval_env, **parsed_options(config.env_options)).name
        values["layout"] = lasting(config.layout)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    values["device"] = device
    # Rounds and intervals are of the schedule that they come with: of env steps, or of updates alone.
    other = () if ("total_updates" in chosen) == offline else ("updates_per_collect", "eval_interval")
    if algorithm != published:  # what a publication says of critics and goals is of its own algorithm
        fill(ALGORITHM_DEFAULTS.get(algorithm, {}), f"algorithm {algorithm}")
    for name, (value, source) in chosen.items():
        fill({} if name in other else {name: value}, source)
    kind = "cpu" if device == "cpu" else "cuda"
    if offline:
        fill(DATASET_SIZES[kind], f"sizes for {kind}")
    if values["discount"] == "fitted":
        # An untrained actor presses one way, and how fast that is forgotten differs from seed to seed.
        fill({"gamma": 0.99, "prefill": "uniform"}, "to fit the discount")
    if spec.image:
        fill(IMAGE_SIZES, "sizes for images")
    fill(RECIPES.get(values["env"], {}), f"recipe {values['env']}")
    if envs.is_adapted(spec.name):
        fill(adapted_recipe(spec.episode_length), "recipe adapted")
    for sizes in device_sizes(kind, values):
        fill(sizes, f"sizes for {kind}")
    short_prefill = (values["total_env_steps"] or 0) // 5
    if sources["learning_starts"].startswith(("recipe", "sizes")) and values["learning_starts"] > short_prefill:
        values["learning_starts"], sources["learning_starts"] = short_prefill, "a fifth of total_env_steps"
    fill(ALGORITHM_DEFAULTS.get(algorithm, {}), f"algorithm {algorithm}")
    fill(DEFAULTS, "default")
    penalties = {"cpc": 0.01, "binary_nce": 0.0, "c_learning": 0.0, "nce_c_learning": 0.0}
    fill({"logsumexp_penalty": penalties.get(values["objective"], 0.1)}, "objective")
    if offline and sources["updates_per_collect"].startswith("sizes"):
        rounds = ("updates_per_collect", "eval_interval", "total_updates")
        values["updates_per_collect"] = min(values[name] for name in rounds)
    fill({"actor_depth": values["depth"], "critic_depth": values["depth"]}, "depth")
    fill({"num_threads": num_cores}, "cores")
    for name in unread:
        _check_read(algorithm, name, getattr(config, name), values[name])
    resolved = TrainConfig(**values)
    _check_together(resolved)
    return Resolved(resolved, sources)


def _check_read(algorithm: str, name: str, value: Any, unset: Any) -> None:
    """Refuse a `value` of a setting that the algorithm does not read, other than the one it has where it is not set."""
    if value not in (AUTO, unset):
        readers = ", ".join(OF_ALGORITHMS[name])
        raise ConfigError(
            f"{name} is not read by algorithm {algorithm}, but by {readers}: leave it out, got {value!r}."
        )


def _check_together(config: TrainConfig) -> None:
    from crl import envs, probes

    if config.network in OF_BLOCKS:
        for name in ("depth", "actor_depth", "critic_depth"):
            check_depth(getattr(config, name), name)
    of_residual = config.residual_scale != "1" or config.recompute or config.compile or config.block_metrics
    if config.network != "residual" and of_residual:
        raise ConfigError(
            "residual_scale, recompute, compile and block_metrics are of the residual network: leave them as they are "
            f"with network {config.network}, or choose network residual."
        )
    if config.network == "hyperspherical" and config.input_bias:
        raise ConfigError(
            f"input_bias must be 0 with network hyperspherical, which has no biases, got {config.input_bias:g}: its "
            "inputs have a constant beside them that does the same."
        )
    if config.bc_form == "mixture" and config.bc_coefficient > 1:
        raise ConfigError(f"bc_coefficient must be at most 1 with bc_form mixture, got {config.bc_coefficient}.")
    _check_bootstraps(config)
    _check_discount(config)
    _check_schedule(config)
    if config.fourier_scale != 1 and not config.fourier_features:
        raise ConfigError(f"fourier_scale is of Fourier features: give their number too, got {config.fourier_scale:g}.")
    _check_commanded(config, envs.spec(config.env, **config.env_kwargs))
    _check_algorithm(config, envs.spec(config.env, **config.env_kwargs))
    train = envs.spec(config.env, **config.env_kwargs)
    _check_images(config, train)
    if config.probes:
        probes.check(config.eval_env, config.eval_env_kwargs)
    evaluation = envs.spec(config.eval_env, **config.eval_env_kwargs)
    for name in ("observation_dim", "goal_dim", "action_dim"):
        if getattr(train, name) != getattr(evaluation, name):
            raise ConfigError(
                f"eval_env {config.eval_env} has {name} {getattr(evaluation, name)}, "
                f"but env {config.env} has {getattr(train, name)}: choose layouts of one robot."
            )


def _check_schedule(config: TrainConfig) -> None:
    if config.init != "all" and not config.init_from:
        raise ConfigError(f"init is what is taken of another run: give one (--init-from), got init {config.init}.")
    if config.dataset:
        given = [name for name in COLLECTING if getattr(config, name) is not AUTO]
        given += ["async"] * config.asynchronous
        if given:
            raise ConfigError(
                f"with a data set nothing is collected: leave {', '.join(given)} out. total_updates says how long the "
                "run is."
            )
        return
    if config.total_updates is not AUTO:
        raise ConfigError(
            "total_updates is the length of a run from a data set: give one (--dataset), or total_env_steps instead."
        )
    if config.buffer_capacity < ROWS_TO_LEARN * config.num_envs:
        raise ConfigError(
            f"buffer_capacity must hold at least {ROWS_TO_LEARN} rows for each of the {config.num_envs} worlds "
            f"({ROWS_TO_LEARN * config.num_envs}), got {config.buffer_capacity}."
        )
    round_steps = config.num_envs * config.unroll_length
    first_update = max(config.learning_starts, ROWS_TO_LEARN * config.num_envs)
    if first_update > math.ceil(config.total_env_steps / round_steps) * round_steps:
        raise ConfigError(
            f"total_env_steps ({config.total_env_steps}) end before the first update, which comes after {first_update} "
            f"(learning_starts, and at least {ROWS_TO_LEARN} in each world): raise it, or lower learning_starts."
        )


def _check_discount(config: TrainConfig) -> None:
    if config.discount == "fixed":
        return
    if config.algorithm in ("sac", "td3") or "c_learning" in config.objective:
        raise ConfigError(
            f"discount must be fixed where the loss has gamma in it, got {config.discount} with algorithm "
            f"{config.algorithm}, objective {config.objective}."
        )
    if config.goals != "geometric":
        raise ConfigError(f"discount {config.discount} is of goals geometric alone, got goals {config.goals}.")
    if config.discount == "scheduled" and not config.gamma_start <= config.gamma < 1:
        raise ConfigError(
            f"a scheduled discount grows from gamma_start to a gamma below 1, got {config.gamma_start} and "
            f"{config.gamma}."
        )


def _check_bootstraps(config: TrainConfig) -> None:
    if config.objective not in ("c_learning", "nce_c_learning"):
        return
    if config.energy in ("norm", "l2") or (config.energy == "cosine" and config.energy_scale != "learned"):
        raise ConfigError(
            f"objective {config.objective} needs logits of any size, which energy {config.energy} has not: "
            "choose energy dot, or cosine with energy_scale learned."
        )
    if config.goal_filter:
        raise ConfigError(
            f"goal_filter must be 0 with objective {config.objective}: it chooses rows by goals that are not theirs."
        )
    if config.gamma == 1:
        raise ConfigError(f"gamma must be below 1 with objective {config.objective}, got 1.")
    if config.logsumexp_penalty:
        raise ConfigError(f"logsumexp_penalty must be 0 with objective {config.objective}, which compares no pairs.")


def _check_commanded(config: TrainConfig, spec: "EnvSpec") -> None:
    """Refuse what needs to know the goals that were commanded, where they are not kept or of no use."""
    negatives = bool(config.commanded_negatives)
    wanted = {"actor_goals commanded": config.actor_goals == "commanded", "commanded_negatives": negatives}
    for name in (name for name, given in wanted.items() if given):
        if config.dataset:
            raise ConfigError(
                f"{name} cannot be had with a data set, which does not say what was commanded: leave it out."
            )
        if spec.image:
            raise ConfigError(f"{name} is not of images, of which the buffer keeps no commanded ones: leave it out.")
    if negatives and config.command != "single":
        raise ConfigError(
            f"commanded_negatives is of one goal that waits to be reached, and command is {config.command}: use "
            "--command single, or leave it out."
        )
    if negatives and config.objective in ("c_learning", "nce_c_learning"):
        raise ConfigError(
            "commanded_negatives is of objectives that find a row's goal among others, such as forward_infonce, got "
            f"{config.objective}."
        )
    if negatives and config.energy not in (bounded := ("norm", "cosine")):
        raise ConfigError(
            f"commanded_negatives is of energies {' and '.join(bounded)}, got {config.energy}, with which a goal is "
            "pushed the harder the farther it is."
        )


def _check_images(config: TrainConfig, spec: "EnvSpec") -> None:
    """Refuse what needs images where there are none, and what images cannot be learnt with."""
    of_images = config.preset in OF_IMAGES
    if config.preset in PUBLICATIONS and of_images != bool(spec.image):
        other, shown = ("images", "numbers") if of_images else ("states", "images")
        fitting = ", ".join(name for name in PUBLICATIONS if (name in OF_IMAGES) == bool(spec.image))
        raise ConfigError(
            f"preset {config.preset} has values for {other}, and {config.env} shows {shown}: leave the preset out, or "
            f"choose one of {fitting}."
        )
    if spec.image and config.goal_filter:
        raise ConfigError("goal_filter must be 0 where goals are images: how far they are apart is not known.")
    if not spec.image:
        for name, unused in (("image_encoder", "published"), ("crop_padding", 0)):
            if getattr(config, name) != unused:
                raise ConfigError(
                    f"{name} is of images, and {config.env} shows none: leave it out, got {getattr(config, name)!r}, "
                    "or choose an environment whose name ends with _image."
                )
        return
    if config.fourier_features:
        raise ConfigError(f"fourier_features are of numbers, and {config.env} shows images: leave them out.")
    if config.input_bias:
        raise ConfigError(f"input_bias is for numbers, and {config.env} shows images: leave it out.")
    if config.normalize_observations:
        raise ConfigError("normalize_observations is of numbers; images are always seen less their mean: leave it out.")
    if config.crop_padding >= min(spec.image[:2]):
        raise ConfigError(
            f"crop_padding must be less than the pixels of a side, {min(spec.image[:2])} in {config.env}, got "
            f"{config.crop_padding}."
        )


def _check_algorithm(config: TrainConfig, spec: "EnvSpec") -> None:
    """Refuse an environment from which the algorithm cannot learn."""
    if config.algorithm not in ("sac", "td3", "forward_model"):
        return
    remedy = f"Choose algorithm crl or gcbc, or, where there is one, the environment without images, not {config.env}."
    if spec.image and config.algorithm == "forward_model":
        raise ConfigError(f"algorithm forward_model predicts a goal's entries one by one, not images. {remedy}")
    if spec.image:
        raise ConfigError(
            f"algorithm {config.algorithm} judges hindsight goals, and images do not say success. {remedy}"
        )
    if config.algorithm != "forward_model" and config.dataset:
        raise ConfigError(
            f"algorithm {config.algorithm} needs to know which goals were commanded and which episodes ended of "
            "themselves, and data sets do not say: choose algorithm crl, gcbc or forward_model, or leave dataset out."
        )
    if config.algorithm != "forward_model" and not spec.success_threshold:
        raise ConfigError(
            f"algorithm {config.algorithm} judges hindsight goals, but only the environment itself knows when it is at "
            f"one ({spec.success}): give the distance within which it is, --env-options success_threshold=..., or "
            "choose another algorithm."
        )
