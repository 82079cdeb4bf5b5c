"""Every setting of a training run: one frozen dataclass makes `--help`, the config file and the table at start.

A setting left at `AUTO` is filled by `resolve`, in this order of precedence: what the user set, the preset (a
publication's values), the recipe of the environment (values measured to learn it well), the sizes that suit the
device, the published default.
"""

import contextlib
import dataclasses
import math
import operator
import os
import re
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from crl.errors import ConfigError, MissingExtraError, nearest
from crl.presets import (
    ALGORITHM_DEFAULTS,
    ALGORITHMS,
    DATASET_SIZES,
    DEFAULTS,
    IMAGE_SIZES,
    OF_ALGORITHMS,
    PRESETS,
    RECIPES,
    adapted_recipe,
    device_sizes,
    preset,
)

if TYPE_CHECKING:
    from crl.envs import EnvSpec

AUTO: Any = None
"""Marks a setting that the preset, the environment's recipe or the device decides."""

LAYERS_PER_BLOCK = 4
"""Dense layers in a residual block, as published."""

OF_BLOCKS = ("residual", "hyperspherical")
"""Networks whose depth counts the layers of blocks."""

ROWS_TO_LEARN = 3
"""Any so many rows of one world in a row hold a state with a successor: two may be an end and a beginning."""

COLLECTING = (
    *("total_env_steps", "num_envs", "unroll_length", "learning_starts", "prefill", "buffer_capacity", "command"),
)
"""Settings of how experience is made. A run from a data set makes none and leaves them AUTO, as others leave
total_updates."""


def _setting(
    default: Any,
    group: str,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Any:
    limits = {"choices": choices, "above": above, "at_least": at_least, "at_most": at_most}
    return field(default=default, metadata={"group": group, "help": help, **limits})


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of one run. Steps are environment steps summed over all worlds unless said otherwise.

    Raises:
        ConfigError: from `validate` and `resolve`, naming the setting, what was expected and what came.
    """

    env: str = _setting("ant_u_maze", "Task", "Environment to learn (see `crl envs`).")
    eval_env: str = _setting(AUTO, "Task", "Environment to evaluate on, such as a far-goal layout. [env]")
    layout: str = _setting(
        "",
        "Task",
        "Maze for env, and for an eval_env that is env or its far goals: a text file, or a layout's name. [env's own]",
    )
    env_options: str = _setting(
        "", "Task", "Further options of env and eval_env: `size=6,loops=0.2`, `fidelity=gymnasium`, ... [defaults]"
    )
    dataset: str = _setting(
        "",
        "Task",
        "Learn from a data set alone: a file of `crl collect`, minari:ID or ogbench:NAME. [none: from the worlds]",
    )
    preset: str = _setting("default", "Task", "Settings of a publication, or `quick`.", choices=("default", *PRESETS))

    depth: int = _setting(
        AUTO, "Networks", "Dense layers in the residual blocks of all three networks; a multiple of 4.", at_least=1
    )
    actor_depth: int = _setting(AUTO, "Networks", "Depth of the actor alone. [depth]", at_least=1)
    critic_depth: int = _setting(AUTO, "Networks", "Depth of the two critic encoders alone. [depth]", at_least=1)
    width: int = _setting(AUTO, "Networks", "Units of every hidden layer.", at_least=1)
    network: str = _setting(
        AUTO,
        "Networks",
        "Residual network with LayerNorm, JaxGCRL's plain swish MLP, ReLU's of 2022, OGBench's GELU and LayerNorm, or "
        "SimbaV2's on the hypersphere.",
        choices=("residual", "mlp", "mlp_relu", "mlp_gelu_norm", "hyperspherical"),
    )
    residual_scale: str = _setting(
        "1",
        "Networks",
        "What blocks add is multiplied by 1 (Wang et al. 2025), or by 1/sqrt(number of blocks).",
        choices=("1", "depth"),
    )
    representation_dim: int = _setting(AUTO, "Networks", "Dimensions of the representations phi and psi.", at_least=1)

    algorithm: str = _setting(
        AUTO,
        "Objective",
        "Contrastive RL, or what it is compared to: critics of sparse rewards (SAC, TD3), cloning, a model of futures.",
        choices=ALGORITHMS,
    )
    energy: str = _setting(
        AUTO, "Objective", "Similarity of phi(s, a) and psi(g).", choices=("norm", "l2", "dot", "cosine")
    )
    energy_scale: str = _setting(
        AUTO,
        "Objective",
        "Energies are multiplied by 1, by 1/sqrt(representation_dim) (OGBench), or by a number that is learnt.",
        choices=("1", "dimension", "learned"),
    )
    objective: str = _setting(
        AUTO,
        "Objective",
        "Critic loss.",
        choices=(
            "forward_infonce",
            "backward_infonce",
            "symmetric_infonce",
            "binary_nce",
            "cpc",
            "c_learning",
            "nce_c_learning",
        ),
    )
    logsumexp_penalty: float = _setting(
        AUTO, "Objective", "Weight of the squared logsumexp. [0.1; cpc 0.01; NCE and C-learning 0]", at_least=0
    )
    num_critics: int = _setting(
        AUTO, "Objective", "Critics that learn side by side. [1; sac, td3: 2]", at_least=1, at_most=2
    )
    critic_value: str = _setting(
        AUTO, "Objective", "What the actor is told by two critics. [mean; sac, td3: min]", choices=("mean", "min")
    )
    gamma: float = _setting(
        AUTO, "Objective", "Discount: P(goal is k steps ahead) is proportional to gamma^k.", above=0, at_most=1
    )
    discount: str = _setting(
        AUTO,
        "Objective",
        "gamma as given; growing to it from gamma_start over half of the run; or fitted to how fast the world forgets, "
        "gamma at most.",
        choices=("fixed", "scheduled", "fitted"),
    )
    gamma_start: float = _setting(
        0.9, "Objective", "Discount at the start where it is scheduled.", above=0, at_most=0.9999
    )
    goals: str = _setting(
        AUTO,
        "Objective",
        "How goals are drawn; `random` ignores the trajectory (an ablation that must not learn). [geometric; sac, td3: "
        "uniform, HER's `future`]",
        choices=("geometric", "uniform", "final", "next", "random"),
    )
    command: str = _setting(
        AUTO,
        "Objective",
        "Goals to collect for: the environment's, a hard one for the whole run (Liu et al. 2024), achieved ones out of "
        "the buffer, or either.",
        choices=("env", "single", "replay", "mixture"),
    )
    commanded_share: float = _setting(
        AUTO,
        "Objective",
        "sac, td3: share of a batch that keeps the goal it was collected for. [0.2, as HER has it; 1: no HER]",
        at_least=0,
        at_most=1,
    )
    exploration_noise: float = _setting(
        0.1, "Objective", "td3: standard deviation of the noise on actions while collecting.", at_least=0
    )
    goal_filter: float = _setting(
        AUTO,
        "Objective",
        "Prefer rows whose goal is farther from where they are than this, where objects move seldom. [0: as drawn]",
        at_least=0,
    )
    actor_goals: str = _setting(
        AUTO,
        "Objective",
        "Goals in the actor's loss: each row's own future (Wang et al. 2025), another row's, or half and half (2022).",
        choices=("future", "random", "mixture"),
    )
    bc_coefficient: float = _setting(
        AUTO, "Objective", "Weight of behaviour cloning in the actor's loss, for offline learning.", at_least=0
    )
    bc_form: str = _setting(
        AUTO,
        "Objective",
        "How it is added: (1 - c) loss + c BC (Eysenbach et al. 2022), or Q over its mean size + c BC (OGBench).",
        choices=("mixture", "normalized"),
    )
    initial_alpha: float = _setting(
        AUTO,
        "Objective",
        "Entropy temperature at the start; it adapts by learning_rate. 0: no entropy term, for good.",
        at_least=0,
    )
    target_entropy_scale: float = _setting(
        AUTO, "Objective", "Target entropy is minus this times the action dimensions.", at_least=0
    )
    learning_rate: float = _setting(AUTO, "Objective", "Adam step size of actor, critic and temperature.", above=0)
    batch_size: int = _setting(AUTO, "Objective", "Rows in a batch; the others' goals are the negatives.", at_least=2)

    total_env_steps: int = _setting(AUTO, "Schedule", "Environment steps of the whole run.", at_least=1)
    num_envs: int = _setting(AUTO, "Schedule", "Worlds simulated in parallel.", at_least=1)
    unroll_length: int = _setting(AUTO, "Schedule", "Steps per world in one collecting round.", at_least=1)
    updates_per_collect: int = _setting(
        AUTO, "Schedule", "Updates after each collecting round; with a data set, of a row of metrics.csv.", at_least=1
    )
    learning_starts: int = _setting(
        AUTO, "Schedule", "Environment steps collected before the first update.", at_least=0
    )
    prefill: str = _setting(
        AUTO,
        "Schedule",
        "Who acts before learning starts: the untrained policy (Wang et al. 2025) or uniform actions.",
        choices=("policy", "uniform"),
    )
    buffer_capacity: int = _setting(
        AUTO, "Schedule", "Rows kept in the replay buffer, all worlds together.", at_least=2
    )
    total_updates: int = _setting(
        AUTO, "Schedule", "Updates of the whole run, where it learns from a data set and so makes no steps.", at_least=1
    )
    asynchronous: bool = _setting(
        False, "Schedule", "Collect the next round while learning from the last ones; the ratio is held."
    )

    eval_interval: int = _setting(
        AUTO,
        "Evaluation",
        "Environment steps (with a data set, updates) between evaluations; each also writes a checkpoint.",
        at_least=1,
    )
    num_eval_episodes: int = _setting(
        AUTO, "Evaluation", "Episodes per evaluation, each in a world of its own.", at_least=1
    )
    num_action_candidates: int = _setting(
        1, "Evaluation", "Act by the best of K sampled actions under the critic; 1 is the actor alone.", at_least=1
    )
    actor_ema: float = _setting(
        AUTO,
        "Evaluation",
        "Evaluate a moving average of the actor's weights with this decay; 0 is the actor itself (published).",
        at_least=0,
        at_most=0.9999,
    )

    seed: int = _setting(0, "Machine", "Seed of everything random.", at_least=0, at_most=2**32 - 1)
    device: str = _setting("auto", "Machine", "`auto` (CUDA if there is one), `cpu`, `cuda` or `cuda:N`.")
    precision: str = _setting(
        "float32", "Machine", "Matrix products: full, TF32 or bfloat16.", choices=("float32", "tf32", "bf16")
    )
    recompute: bool = _setting(
        False,
        "Machine",
        "Compute the insides of residual blocks twice instead of keeping them: less memory, more time.",
    )
    compile: bool = _setting(
        False,
        "Machine",
        "Let torch.compile make a residual block's passes: takes a C++ compiler on a CPU, Triton on a GPU.",
    )
    graphs: bool = _setting(
        True, "Machine", "On a GPU, capture updates and acting as CUDA graphs: fewer launches, more memory."
    )
    num_threads: int = _setting(AUTO, "Machine", "CPU threads of physics and of PyTorch. [cores]", at_least=1)

    run_dir: str = _setting(AUTO, "Run", "Directory for the run; must be new. [runs/ENV-dDEPTH-sSEED-DATE]")
    block_metrics: bool = _setting(
        False, "Run", "Measure the first, middle and last residual block of every network (metrics train/..._norm)."
    )
    keep_checkpoints: int = _setting(2, "Run", "Newest checkpoints to keep.", at_least=1)

    def __post_init__(self) -> None:
        for setting in dataclasses.fields(self):
            check(setting, getattr(self, setting.name))

    @property
    def env_kwargs(self) -> dict[str, Any]:
        """Options of `env`, as `crl.envs.make` takes them."""
        options = parsed_options(self.env_options)
        return {**options, "layout": self.layout} if self.layout else options

    @property
    def eval_env_kwargs(self) -> dict[str, Any]:
        """Those of `eval_env`, both names resolved; the layout only where it is `env`, or its far goals."""
        return self.env_kwargs if self.layout_is_evaluated else parsed_options(self.env_options)

    @property
    def total(self) -> int:
        """The length of the run: env steps, or with a data set updates."""
        return self.total_updates if self.dataset else self.total_env_steps

    @property
    def layout_is_evaluated(self) -> bool:
        """Whether the layout is for `eval_env` too."""
        return _all_goals(self.eval_env) == _all_goals(self.env)


SETTINGS: Mapping[str, "dataclasses.Field[Any]"] = types.MappingProxyType(
    {setting.name: setting for setting in dataclasses.fields(TrainConfig)}
)
_TYPES = get_type_hints(TrainConfig)
_FILE_KEYS = {"async": "asynchronous"}
"""`async` is a keyword in Python, so the attribute has the long name; files and flags have the short one."""


def parsed_options(text: str) -> dict[str, Any]:
    """`size=6,loops=0.2` as a mapping; values are numbers, true, false, or else text.

    Raises:
        ConfigError: an entry is not NAME=VALUE, or names the layout, which is a setting of its own.
    """
    options: dict[str, Any] = {}
    for entry in filter(None, (entry.strip() for entry in text.split(","))):
        name, equals, value = (part.strip() for part in entry.partition("="))
        if not name or not equals or not value:
            raise ConfigError(f"env_options must be NAME=VALUE,NAME=VALUE,..., got {entry!r}.")
        if name == "layout":
            raise ConfigError("env_options: layout is a setting of its own; use --layout.")
        options[name] = {"true": True, "false": False}.get(value.lower(), value)
        for kind in (float, int):  # whole numbers last, so that they stay so
            with contextlib.suppress(ValueError):
                options[name] = kind(value)
    return options


def setting_type(name: str) -> type:
    """The Python type of setting `name`: bool, int, float or str."""
    return _TYPES[name]  # type: ignore[no-any-return]


def file_key(name: str) -> str:
    """The key of setting `name` in files and, with dashes, on the command line."""
    return next((key for key, target in _FILE_KEYS.items() if target == name), name)


def check(setting: "dataclasses.Field[Any]", value: Any) -> None:
    """Raise ConfigError unless `value` is AUTO (where that is the default) or within the setting's type and limits."""
    if value is AUTO and setting.default is AUTO:
        return
    name, kind, limits = file_key(setting.name), setting_type(setting.name), setting.metadata
    accepted: Any = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{name} must be of type {kind.__name__}, got {value!r}.")
    if limits["choices"] and value not in limits["choices"]:
        hint = nearest(str(value), limits["choices"])
        raise ConfigError(f"{name} must be one of {', '.join(limits['choices'])}; got {value!r}.{hint}")
    if kind is not float and kind is not int:
        return
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name} must be finite, got {value!r}.")
    for limit, holds, words in (
        ("above", operator.gt, "greater than"),
        ("at_least", operator.ge, "at least"),
        ("at_most", operator.le, "at most"),
    ):
        if limits[limit] is not None and not holds(value, limits[limit]):
            raise ConfigError(f"{name} must be {words} {limits[limit]:g}, got {value!r}.")


def from_mapping(values: Mapping[Any, Any], *, origin: str = "the configuration") -> TrainConfig:
    """A TrainConfig from a mapping with the keys of a config file.

    Raises:
        ConfigError: on an unknown key (naming the nearest one) or a value out of its type or limits.
    """
    keys = [file_key(name) for name in SETTINGS]
    settings = {}
    for key, value in values.items():
        if key not in keys:
            raise ConfigError(f"{origin} has an unknown key {key!r}.{nearest(str(key), keys)}")
        settings[_FILE_KEYS.get(key, key)] = value
    try:
        return TrainConfig(**settings)
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from None


def to_mapping(config: TrainConfig) -> dict[str, Any]:
    """The inverse of `from_mapping`: plain values under file keys, in the order of the settings."""
    return {file_key(name): getattr(config, name) for name in SETTINGS}


def _yaml() -> Any:
    try:
        import yaml
    except ImportError:
        raise MissingExtraError('reading settings from YAML needs: pip install "crl[train]"') from None
    return yaml


def read_settings(path: str | Path) -> dict[str, Any]:
    """The mapping in YAML file `path`. Values such as 3e-4, which YAML 1.1 reads as text, become numbers.

    Raises:
        ConfigError: when the file cannot be read, is not YAML, or is not a mapping of settings.
    """
    yaml = _yaml()
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file {path} cannot be read: {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2001-99-99
        raise ConfigError(f"config file {path} is not valid YAML: {' '.join(str(error).split())}") from None
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ConfigError(f"config file {path} must hold a mapping of settings, got {type(values).__name__}.")
    for key, value in values.items():
        if isinstance(value, str) and _TYPES.get(key) in (int, float):
            try:
                number = float(value)
            except ValueError:
                continue
            values[key] = int(number) if _TYPES[key] is int and number.is_integer() else number
    from_mapping(values, origin=f"config file {path}")
    return values


def write(config: TrainConfig, path: str | Path) -> None:
    """Write `config` as YAML that `read_settings` reads back to the same values. A kill leaves no half of it."""
    partial = Path(path).with_suffix(".partial")
    yaml = _yaml()
    dumper: Any = type("BlockDumper", (yaml.SafeDumper,), {})  # a maze as it looks, not as a line with \n in it
    dumper.add_representer(
        str,
        lambda self, text: self.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
    )
    partial.write_text(yaml.dump(to_mapping(config), Dumper=dumper, sort_keys=False), encoding="utf-8")
    os.replace(partial, path)


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
        fill({"gamma": 0.99}, "at most, fitted")
    fill(RECIPES.get(values["env"], {}), f"recipe {values['env']}")
    if envs.is_adapted(spec.name):
        fill(adapted_recipe(spec.episode_length), "recipe adapted")
    if spec.image:
        fill(IMAGE_SIZES, "sizes for images")
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
    from crl import envs

    if config.network in OF_BLOCKS:
        for name in ("depth", "actor_depth", "critic_depth"):
            check_depth(getattr(config, name), name)
    of_residual = config.residual_scale != "1" or config.recompute or config.compile or config.block_metrics
    if config.network != "residual" and of_residual:
        raise ConfigError(
            "residual_scale, recompute, compile and block_metrics are of the residual network: leave them as they are "
            f"with network {config.network}, or choose network residual."
        )
    if config.bc_form == "mixture" and config.bc_coefficient > 1:
        raise ConfigError(f"bc_coefficient must be at most 1 with bc_form mixture, got {config.bc_coefficient}.")
    _check_bootstraps(config)
    _check_discount(config)
    _check_schedule(config)
    _check_algorithm(config, envs.spec(config.env, **config.env_kwargs))
    if config.goal_filter and envs.spec(config.env, **config.env_kwargs).image:
        raise ConfigError("goal_filter must be 0 where goals are images: how far they are apart is not known.")
    train = envs.spec(config.env, **config.env_kwargs)
    evaluation = envs.spec(config.eval_env, **config.eval_env_kwargs)
    for name in ("observation_dim", "goal_dim", "action_dim"):
        if getattr(train, name) != getattr(evaluation, name):
            raise ConfigError(
                f"eval_env {config.eval_env} has {name} {getattr(evaluation, name)}, "
                f"but env {config.env} has {getattr(train, name)}: choose layouts of one robot."
            )


def _check_schedule(config: TrainConfig) -> None:
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
    if config.gamma == 1:
        raise ConfigError(f"gamma must be below 1 with objective {config.objective}, got 1.")
    if config.logsumexp_penalty:
        raise ConfigError(f"logsumexp_penalty must be 0 with objective {config.objective}, which compares no pairs.")


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


def _all_goals(env: str) -> str:
    """The name of the environment whose far goals `env` has, or its own."""
    return re.sub("_eval(?=_image$|$)", "", env)


def check_depth(depth: int, name: str = "depth") -> None:
    """Raise ConfigError unless `depth` is a positive multiple of 4, naming the nearest valid ones."""
    if depth < 4 or depth % 4:
        below, above = depth // 4 * 4, depth // 4 * 4 + 4
        near = f"{below} or {above}" if below >= 4 else "4"
        raise ConfigError(
            f"{name} must be a positive multiple of 4 (a residual block has 4 layers), got {depth}; nearest: {near}."
        )
