"""Settings: limits, files, presets and who wins when several name the same setting."""

import dataclasses
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import crl
from crl.config import (
    AUTO,
    COLLECTING,
    SETTINGS,
    TrainConfig,
    check_depth,
    file_key,
    from_mapping,
    read_settings,
    setting_type,
    to_mapping,
    write,
)
from crl.errors import ConfigError
from crl.presets import DEFAULTS, IMAGE_SIZES, PRESETS, RECIPES, adapted_recipe, device_sizes, preset
from crl.publications import OF_IMAGES, PUBLICATIONS
from crl.resolution import resolve


def resolved(device: str = "cpu", **settings: Any) -> TrainConfig:
    return resolve(TrainConfig(**settings), device=device, num_cores=2).config


def attempt(call: Callable[[], Any]) -> tuple[Any, str | None]:
    """What `call` returns, or the text of its ConfigError."""
    try:
        return call(), None
    except ConfigError as error:
        return None, str(error)


# --- each setting ---------------------------------------------------------------------------------------------------


def test_every_default_is_within_its_own_limits() -> None:
    TrainConfig()  # checks all of them
    for name, setting in SETTINGS.items():
        value = setting.default
        assert value is AUTO or type(value) is setting_type(name), name


def test_every_setting_has_a_group_and_a_sentence_of_help() -> None:
    for name, setting in SETTINGS.items():
        assert setting.metadata["group"], name
        assert re.fullmatch(r".{10,}\.( \[.+\])?", setting.metadata["help"]), name


def test_groups_are_contiguous() -> None:
    groups = [setting.metadata["group"] for setting in SETTINGS.values()]
    assert len([g for i, g in enumerate(groups) if i == 0 or g != groups[i - 1]]) == len(set(groups))


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("depth", 0, "depth must be at least 1, got 0"),
        ("width", -5, "width must be at least 1, got -5"),
        ("width", 2.5, "width must be of type int, got 2.5"),
        ("seed", None, "seed must be of type int, got None"),
        ("width", True, "width must be of type int, got True"),
        ("env", 3, "env must be of type str, got 3"),
        ("asynchronous", 1, "async must be of type bool, got 1"),
        ("gamma", 0.0, "gamma must be greater than 0, got 0.0"),
        ("gamma", 1.5, "gamma must be at most 1, got 1.5"),
        ("gamma", math.nan, "gamma must be finite, got nan"),
        ("learning_rate", math.inf, "learning_rate must be finite, got inf"),
        ("learning_rate", "fast", "learning_rate must be of type float, got 'fast'"),
        ("batch_size", 1, "batch_size must be at least 2, got 1"),
        ("seed", 2**32, "seed must be at most"),
        ("energy", "norn", "energy must be one of norm, l2, dot, cosine; got 'norn'. Did you mean 'norm'"),
        ("precision", "bf1", "Did you mean 'bf16'"),
        ("goals", "geometrik", "Did you mean 'geometric'"),
        ("preset", "papr", "Did you mean 'paper'"),
    ],
)
def test_a_bad_value_is_refused_by_name(setting: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        TrainConfig(**{setting: value})
    assert message in str(error.value)


def test_an_integer_is_a_fine_float() -> None:
    assert TrainConfig(gamma=1).gamma == 1


@given(
    name=st.sampled_from(sorted(SETTINGS)),
    value=st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers())),
)
def test_any_value_is_taken_as_it_is_or_refused(name: str, value: Any) -> None:
    config, refusal = attempt(lambda: TrainConfig(**{name: value}))
    if refusal is None:
        assert getattr(config, name) is value
    else:
        assert refusal.startswith(file_key(name))


# --- files ----------------------------------------------------------------------------------------------------------


def test_an_unknown_key_is_answered_with_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"the configuration has an unknown key 'batchsize'\. Did you mean 'batch_size'"
    ):
        from_mapping({"batchsize": 3})
    with pytest.raises(ConfigError, match="unknown key 3"):
        from_mapping({3: 3})


def test_async_is_the_key_in_files_and_asynchronous_is_not() -> None:
    assert from_mapping({"async": True}).asynchronous
    with pytest.raises(ConfigError, match="unknown key 'asynchronous'"):
        from_mapping({"asynchronous": True})


def text_like_yaml() -> st.SearchStrategy[str]:
    return st.text(st.characters(codec="utf-8", exclude_categories=("C",)), min_size=1)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "env": text_like_yaml(),
            "run_dir": text_like_yaml(),
            "gamma": st.floats(0, 1, exclude_min=True),
            "learning_rate": st.floats(min_value=0, exclude_min=True, allow_infinity=False),
            "seed": st.integers(0, 2**32 - 1),
            "num_envs": st.integers(min_value=1),
            "asynchronous": st.booleans(),
            "energy": st.sampled_from(SETTINGS["energy"].metadata["choices"]),
        },
    )
)
def test_yaml_round_trip(tmp_path_factory: pytest.TempPathFactory, settings: dict[str, Any]) -> None:
    config = TrainConfig(**settings)
    path = tmp_path_factory.getbasetemp() / "round_trip.yaml"
    write(config, path)
    assert from_mapping(read_settings(path)) == config


def test_the_keys_of_a_file_are_in_the_order_of_the_settings(tmp_path: Path) -> None:
    write(TrainConfig(), tmp_path / "config.yaml")
    keys = list(yaml.safe_load((tmp_path / "config.yaml").read_text()))
    assert keys == [file_key(name) for name in SETTINGS] == list(to_mapping(TrainConfig()))


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("learning_rate: 3e-4", {"learning_rate": 3e-4}),  # YAML 1.1 reads 3e-4 as text
        ("total_env_steps: 1e6", {"total_env_steps": 1_000_000}),
        ("total_env_steps: 1_000_000", {"total_env_steps": 1_000_000}),
        ("gamma: 1", {"gamma": 1}),
        ("async: on", {"async": True}),
        ("", {}),
        ("# nothing but a comment", {}),
    ],
)
def test_numbers_in_yaml_are_what_a_person_means(tmp_path: Path, text: str, values: dict[str, Any]) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    assert read_settings(path) == values
    for key, value in values.items():
        assert type(read_settings(path)[key]) is type(value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"depth: [4", "is not valid YAML"),
        (b"a: 2001-99-99", "is not valid YAML"),
        (b"[" * 5000, "is not valid YAML"),
        (b"\xff\xfe\xfa", "cannot be read"),
        (b"- depth", "must hold a mapping of settings, got list"),
        (b"depht: 4", "has an unknown key 'depht'. Did you mean 'depth'"),
        (b"depth: four", "depth must be of type int, got 'four'"),
        (b"depth: 4.5e0", "depth must be of type int, got 4.5"),
        (b"depth: nan", "depth must be of type int, got nan"),
        (b"!!python/object/apply:os.system [exit]", "is not valid YAML"),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "settings.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        read_settings(path)
    assert f"config file {path}" in str(error.value)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml cannot be read"):
        read_settings(tmp_path / "nowhere.yaml")


@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_no_file_makes_another_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    path.write_bytes(content)
    settings, refusal = attempt(lambda: read_settings(path))
    assert str(path) in refusal if refusal is not None else isinstance(settings, dict)


# --- who wins -------------------------------------------------------------------------------------------------------


def test_precedence_is_set_then_preset_then_recipe_then_device() -> None:
    assert resolved(env="reacher").gamma == 0.8  # the recipe of reacher
    assert resolved(env="reacher", preset="paper").gamma == 0.99  # the preset beats the recipe
    assert resolved(env="reacher", preset="paper", gamma=0.5).gamma == 0.5  # set beats both
    assert resolved().gamma == 0.99  # neither: the published default
    assert resolved().num_envs == 64  # device
    assert resolved("cuda").num_envs == 512
    assert resolved("cuda:1") == dataclasses.replace(resolved("cuda"), device="cuda:1")
    assert resolved(preset="quick").num_envs == 32  # the preset beats the device
    assert resolved(preset="quick", num_envs=7).num_envs == 7


def test_the_source_of_every_value_is_told() -> None:
    settings = TrainConfig(env="reacher", preset="quick", batch_size=99, critic_depth=8)
    sources = resolve(settings, device="cpu", num_cores=2).sources
    assert list(sources) == list(SETTINGS)
    expected = {
        "env": "set",
        "gamma": "recipe reacher",
        "num_envs": "preset quick",
        "batch_size": "set",
        "critic_depth": "set",
        "actor_depth": "depth",
        "depth": "sizes for cpu",
        "num_threads": "cores",
        "representation_dim": "default",
    }
    assert {name: sources[name] for name in expected} == expected


def test_resolving_leaves_only_the_run_directory_open_and_changes_nothing_twice() -> None:
    for device in ("cpu", "cuda"):
        for name in ("default", "paper", "jaxgcrl", "quick"):
            once = resolved(device, preset=name)
            assert [name for name in SETTINGS if getattr(once, name) is AUTO] == ["total_updates", "run_dir"]
            assert resolve(once, device=device, num_cores=7).config == once


def test_with_a_data_set_only_updates_are_scheduled() -> None:
    for device in ("cpu", "cuda"):
        for name in ("default", *PRESETS):
            env = "point_u_maze_image" if name in OF_IMAGES else "point_maze"
            once = resolved(device, preset=name, env=env, dataset="walks.safetensors")
            assert [name for name in SETTINGS if getattr(once, name) is AUTO] == [
                *(name for name in SETTINGS if name in COLLECTING),
                "run_dir",
            ]
            assert once.total == once.total_updates
            assert once.eval_interval == once.total_updates / 10  # not the preset's, which is in env steps
            assert resolve(once, device=device, num_cores=7).config == once
    assert resolved(env="point_maze", dataset="walks").width == 64  # the recipe's, of which all but the schedule holds
    short = resolved(dataset="walks.safetensors", total_updates=50)
    assert short.updates_per_collect == 50  # or the run would be longer
    settings = TrainConfig(dataset="walks.safetensors", num_eval_episodes=3)
    sources = resolve(settings, device="cpu", num_cores=2).sources
    assert {sources[name] for name in COLLECTING} == {"not of this run"}
    assert sources["total_updates"] == "sizes for cpu"


def test_images_get_a_buffer_that_fits_into_memory() -> None:
    assert resolved(env="point_nine_rooms_image").buffer_capacity == 100_000
    assert resolved(env="point_nine_rooms_image", buffer_capacity=5000).buffer_capacity == 5000
    assert resolved(env="point_nine_rooms").buffer_capacity > 100_000


def test_aliases_become_the_canonical_name() -> None:
    config = resolved(env="ant_maze")
    assert (config.env, config.eval_env) == ("ant_u_maze", "ant_u_maze")
    assert resolved(env="ant_maze", eval_env="ant_maze_eval").eval_env == "ant_u_maze_eval"


def test_depth_is_that_of_both_unless_one_is_set() -> None:
    config = resolved(depth=64, actor_depth=8)
    assert (config.actor_depth, config.critic_depth) == (8, 64)


# --- what is refused together -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("depth", "near"),
    [(255, "252 or 256"), (1, "nearest: 4."), (3, "nearest: 4."), (5, "4 or 8"), (1023, "1020 or 1024")],
)
def test_an_impossible_depth_names_its_neighbours(depth: int, near: str) -> None:
    for name in ("depth", "actor_depth", "critic_depth"):
        with pytest.raises(ConfigError, match=rf"{name} must be a positive multiple of 4 .*got {depth}.*{near}"):
            resolved(**{name: depth})


def test_possible_depths() -> None:
    for depth in (4, 8, 64, 256, 1024):
        check_depth(depth)
    assert resolved(network="mlp", depth=3).depth == 3  # plain networks have any number of layers


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"env": "ant_mase"}, "ant_maze"),
        ({"eval_env": "nothing_like_it_at_all"}, "nothing_like_it_at_all"),
        ({"env": "ant_u_maze", "eval_env": "point_maze"}, "eval_env point_u_maze has observation_dim 4"),
        (
            {"num_envs": 10, "buffer_capacity": 29},
            "buffer_capacity must hold at least 3 rows for each of the 10 worlds (30)",
        ),
        ({"total_env_steps": 1000, "learning_starts": 4000}, "total_env_steps (1000) end before the first update"),
        ({"objective": "c_learning", "energy": "dot", "goal_filter": 0.1}, "goal_filter must be 0 with objective"),
        ({"objective": "c_learning"}, "choose energy dot, or cosine with energy_scale learned"),
        ({"objective": "nce_c_learning", "energy": "dot", "gamma": 1.0}, "gamma must be below 1"),
        ({"objective": "c_learning", "energy": "dot", "logsumexp_penalty": 0.1}, "which compares no pairs"),
        ({"env": "point_u_maze_image", "goal_filter": 0.1}, "goal_filter must be 0 where goals are images"),
        (
            {"env": "point_u_maze_image", "preset": "paper"},
            "for states, and point_u_maze_image shows images",
        ),
        ({"env": "ant", "preset": "eysenbach2022_image"}, "for images, and ant shows numbers: leave the preset out"),
        ({"env": "ant", "image_encoder": "residual"}, "image_encoder is of images, and ant shows none: leave it out"),
        ({"env": "ant", "crop_padding": 4}, "crop_padding is of images, and ant shows none: leave it out, got 4"),
        ({"env": "point_u_maze_image", "crop_padding": 64}, "crop_padding must be less than the pixels of a side, 64"),
        ({"dataset": "walks", "num_envs": 8}, "with a data set nothing is collected: leave num_envs out"),
        ({"dataset": "walks", "asynchronous": True, "command": "replay"}, "leave command, async out"),
        ({"dataset": "walks", "total_env_steps": 10, "prefill": "policy"}, "leave total_env_steps, prefill out"),
        ({"total_updates": 10}, "total_updates is the length of a run from a data set"),
        ({"num_envs": 8, "unroll_length": 1, "total_env_steps": 8, "learning_starts": 0}, "comes after 24"),
    ],
)
def test_settings_that_contradict_each_other(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolved(**settings)
    assert message in str(error.value)


# --- published values -----------------------------------------------------------------------------------------------

WANG_2025 = {
    # "1000 Layer Networks for Self-Supervised RL", the authors' released defaults; batch as their README runs it.
    "network": "residual",
    "width": 256,
    "depth": 4,
    "representation_dim": 64,
    "energy": "norm",
    "objective": "forward_infonce",
    "logsumexp_penalty": 0.1,
    "target_entropy_scale": 0.5,
    "learning_rate": 3e-4,
    "gamma": 0.99,
    "goals": "geometric",
    "batch_size": 512,
    "total_env_steps": 100_000_000,
    "num_envs": 512,
    "unroll_length": 62,
    "updates_per_collect": 800,
    "learning_starts": 1000 * 512,
    "prefill": "policy",
    "buffer_capacity": 10_000 * 512,
    "eval_interval": 1_000_000,  # 100 epochs
    "num_eval_episodes": 128,
    "num_action_candidates": 1,
}
BORTKIEWICZ_2025 = {
    # "Accelerating goal-conditioned RL algorithms and research" (JaxGCRL): 1000 updates a round, (62 * 256) env steps.
    **WANG_2025,
    "network": "mlp",
    "depth": 2,
    "batch_size": 256,
    "total_env_steps": 50_000_000,
    "num_envs": 256,
    "updates_per_collect": 1000,
    "learning_starts": 1000 * 256,
    "buffer_capacity": 10_000 * 256,
    "eval_interval": 250_000,  # 200 evaluations
    "num_eval_episodes": 256,
}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize(("preset", "published"), [("paper", WANG_2025), ("jaxgcrl", BORTKIEWICZ_2025)])
def test_presets_are_as_published(preset: str, published: dict[str, Any], device: str) -> None:
    for env in ("ant_u_maze", "reacher"):  # no recipe changes a publication
        config = resolved(device, preset=preset, env=env)
        assert {name: getattr(config, name) for name in published} == published


def test_published_env_steps_per_update() -> None:
    for name, ratio in (("paper", 39.68), ("jaxgcrl", 15.872)):
        config = resolved(preset=name)
        assert config.num_envs * config.unroll_length / config.updates_per_collect == ratio


# --- every setting is used --------------------------------------------------------------------------------------------


def test_every_setting_is_read_somewhere() -> None:
    package = Path(crl.__file__).parent
    sources = {path: path.read_text() for path in package.rglob("*.py") if path.name not in ("config.py", "presets.py")}
    unread = [
        name
        for name in SETTINGS
        if name not in ("preset", "depth", "layout", "env_options")  # read by resolve, and as env_kwargs
        and not any(f"config.{name}" in text or f"settings.{name}" in text for text in sources.values())
    ]
    assert not unread


def test_presets_and_recipes_fill_only_what_is_left_open() -> None:
    """A setting with a default of its own is never filled, so a value for it in a recipe would do nothing."""
    values = [*map(preset, PRESETS), *RECIPES.values(), DEFAULTS, IMAGE_SIZES, adapted_recipe(100)]
    values += [sizes for kind in ("cpu", "cuda") for sizes in device_sizes(kind, {"num_envs": 64})]
    named = {name for settings in values for name in settings}
    assert {name for name in named if SETTINGS[name].default is not AUTO} == set()


@pytest.mark.parametrize("env", RECIPES)
def test_a_recipe_is_what_a_run_gets(env: str) -> None:
    resolved = resolve(TrainConfig(env=env), device="cpu", num_cores=2).config
    assert {name: getattr(resolved, name) for name in RECIPES[env]} == dict(RECIPES[env])


@pytest.mark.parametrize("name", PUBLICATIONS)
def test_every_value_of_a_publication_is_set_with_its_source(name: str) -> None:
    env = "point_u_maze_image" if name in OF_IMAGES else "pusher_easy"
    found = resolve(TrainConfig(env=env, preset=name), device="cpu", num_cores=2)
    schedule = ("total_updates", "eval_interval", "updates_per_collect")  # of data sets alone, where it counts updates
    without = schedule if "total_updates" in PUBLICATIONS[name] else ()
    for setting, (value, source) in PUBLICATIONS[name].items():
        assert re.search(r"20\d\d|ours: ", source), setting
        if setting in without:
            continue
        assert getattr(found.config, setting) == value, setting
        assert found.sources[setting] == source


EYSENBACH_2022 = {
    # "Contrastive Learning as Goal-Conditioned Reinforcement Learning", the authors' released config.
    "network": "mlp_relu",
    "depth": 2,
    "width": 256,
    "representation_dim": 64,
    "energy": "dot",
    "objective": "binary_nce",
    "logsumexp_penalty": 0.0,
    "num_critics": 1,
    "actor_goals": "mixture",
    "initial_alpha": 0.0,
    "learning_rate": 3e-4,
    "batch_size": 256,
    "gamma": 0.99,
    "learning_starts": 10_000,
    "prefill": "uniform",
    "buffer_capacity": 1_000_000,
    "command": "env",
}
LIU_2024 = {**EYSENBACH_2022, "objective": "cpc", "logsumexp_penalty": 0.01, "command": "single"}
PARK_2025 = {
    "network": "mlp_gelu_norm",
    "depth": 3,
    "width": 512,
    "representation_dim": 512,
    "energy": "dot",
    "energy_scale": "dimension",
    "objective": "binary_nce",
    "num_critics": 2,
    "critic_value": "min",
    "bc_form": "normalized",
    "bc_coefficient": 0.1,
    "initial_alpha": 0.0,
    "learning_rate": 3e-4,
    "batch_size": 1024,
    "gamma": 0.99,
}


@pytest.mark.parametrize(
    ("name", "published"), [("eysenbach2022", EYSENBACH_2022), ("sgcrl", LIU_2024), ("ogbench", PARK_2025)]
)
def test_presets_are_the_publications(name: str, published: dict[str, Any]) -> None:
    found = resolve(TrainConfig(preset=name), device="cpu", num_cores=2).config
    assert {setting: getattr(found, setting) for setting in published} == published


@pytest.mark.parametrize("name", ["eysenbach2022", "sgcrl"])
def test_2022_makes_an_update_a_step(name: str) -> None:
    found = resolve(TrainConfig(preset=name), device="cpu", num_cores=2).config
    assert found.updates_per_collect == found.num_envs * found.unroll_length
