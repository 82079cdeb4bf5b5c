"""Every setting of a training run: one frozen dataclass makes `--help`, the config file and the table at start.

A setting left at `AUTO` is filled by `crl.resolution.resolve`.
"""

import contextlib
import dataclasses
import math
import operator
import re
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from crl.errors import ConfigError, MissingExtraError, nearest
from crl.files import write_text
from crl.presets import (
    ALGORITHMS,
    PRESETS,
)

if TYPE_CHECKING:
    pass

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
    init_from: str = _setting("", "Task", "Run whose newest weights this one begins with. [none: random weights]")
    init: str = _setting(
        "all",
        "Task",
        "What it takes of them: all networks, the critic's (Eysenbach et al. 2022, transfer) or the actor.",
        choices=("all", "encoders", "actor"),
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
    normalize_observations: bool = _setting(
        AUTO,
        "Networks",
        "Networks see observations and goals less their mean and over their deviation, of the first batch.",
    )
    input_bias: float = _setting(
        0.0,
        "Networks",
        "Biases of every network's first layer are drawn from U(-X, X): by them LayerNorm tells apart what lies in one "
        "direction.",
        at_least=0,
    )
    fourier_features: int = _setting(
        0, "Networks", "Sines and cosines of so many random projections beside every network's input.", at_least=0
    )
    fourier_scale: float = _setting(
        1.0, "Networks", "Deviation of their frequencies, radians per unit of the input.", above=0
    )
    image_encoder: str = _setting(
        "published",
        "Networks",
        "Convolutions that look at images: those of DQN, as published, or a small residual network (after IMPALA's).",
        choices=("published", "residual"),
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
    commanded_negatives: float = _setting(
        0.0,
        "Objective",
        "In batches that nowhere reach what is commanded, its energy with every row is pushed down, by this weight.",
        at_least=0,
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
        "Goals in the actor's loss: each row's own future (Wang et al. 2025), another row's, half and half (2022), or "
        "half another row's and half what was commanded.",
        choices=("future", "random", "mixture", "commanded"),
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
    crop_padding: int = _setting(
        0,
        "Objective",
        "Learn from images of which half are moved at random by up to so many pixels, down or up and right or left.",
        at_least=0,
    )

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

    probes: bool = _setting(
        False,
        "Evaluation",
        "Evaluate a second time, for goals all along the ways of a maze: success by distance (metrics probe/...).",
    )
    exploration_metrics: bool = _setting(
        True, "Evaluation", "Measure where the run has been, and how psi lies about that (metrics explore/...)."
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


def read_yaml(path: str | Path) -> dict[Any, Any]:
    """The mapping in YAML file `path`; of an empty file, none.

    Raises:
        ConfigError: when the file cannot be read, is not YAML, or holds something else.
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
    return values


def number_of(key: Any, value: Any) -> Any:
    """A setting's value as a file has it: one such as 3e-4, which YAML 1.1 reads as text, as the number it is."""
    if isinstance(value, str) and _TYPES.get(key) in (int, float):
        with contextlib.suppress(ValueError):
            number = float(value)
            return int(number) if _TYPES[key] is int and number.is_integer() else number
    return value


def read_settings(path: str | Path) -> dict[str, Any]:
    """The settings in YAML file `path`.

    Raises:
        ConfigError: when the file cannot be read, is not YAML, or is not a mapping of settings.
    """
    values = {key: number_of(key, value) for key, value in read_yaml(path).items()}
    from_mapping(values, origin=f"config file {path}")
    return values


def write(config: TrainConfig, path: str | Path) -> None:
    """Write `config` as YAML that `read_settings` reads back to the same values. A kill leaves no half of it."""
    yaml = _yaml()
    dumper: Any = type("BlockDumper", (yaml.SafeDumper,), {})  # a maze as it looks, not as a line with \n in it
    dumper.add_representer(
        str,
        lambda self, text: self.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
    )
    write_text(path, yaml.dump(to_mapping(config), Dumper=dumper, sort_keys=False))


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
