"""Values of settings that belong together: presets, by environment, by device, by algorithm."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from crl.publications import PUBLICATIONS, Value

QUICK: Mapping[str, Any] = MappingProxyType(
    {
        # A look at everything within a minute or two on two cores; too short to learn a hard task.
        "num_envs": 32,
        "unroll_length": 50,
        "updates_per_collect": 25,
        "learning_starts": 6_400,
        "total_env_steps": 50_000,
        "eval_interval": 25_000,
        "num_eval_episodes": 32,
    }
)
PRESETS = ("quick", *PUBLICATIONS)


def preset(name: str) -> Mapping[str, Value]:
    """The values of preset `name`, each with its source."""
    if name == "quick":
        return {setting: Value(value, "preset quick") for setting, value in QUICK.items()}
    return PUBLICATIONS[name]


DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        # Wang et al. 2025.
        "algorithm": "crl",
        "objective": "forward_infonce",
        "normalize_observations": False,
        "energy": "norm",
        "energy_scale": "1",
        "num_critics": 1,
        "critic_value": "mean",
        "representation_dim": 64,
        "goals": "geometric",
        "discount": "fixed",
        "commanded_share": 0.0,
        "command": "env",
        "bc_coefficient": 0.0,
        "bc_form": "mixture",
    }
)
"""What is left open by preset, recipe and sizes."""

# Goals lie behind corners. Uniform actions for the 1000 steps per world that are published, as the untrained policy
# sees only one corner, and a buffer that keeps them; goals of other rows for the actor, as rows at the start of an
# episode, from where evaluation commands the far goals, are few; a temperature that has not to fall for 10,000 updates
# first, and a policy that may be as narrow as a corridor asks, hence no entropy of its own; networks that suit a plane,
# three times as fast as the published width, at twice the step size; and an averaged actor, as the present one takes a
# corner now too close and now too wide.
_POINT_MAZE = {
    "width": 64,
    "learning_rate": 6e-4,
    "actor_goals": "random",
    "initial_alpha": 0.1,
    "target_entropy_scale": 0.0,
    "actor_ema": 0.998,
    "prefill": "uniform",
    "learning_starts": 64_000,
    "buffer_capacity": 1_600_000,
    "total_env_steps": 750_000,
    "eval_interval": 75_000,
}

# With one update per 66 env steps the temperature takes a million env steps to fall from 1 to where it belongs, 0.01,
# and until then the policy is noise; and goals that lie farther than an untrained ant walks must come from other rows.
_ANT = {"initial_alpha": 0.02, "actor_goals": "mixture"}

# The arm is where its servos were told to be a few steps ago: after 90,000 steps it stays at every goal, at 0.99 it
# finds 4 of 10. A narrow network, as for the point mazes, and a temperature that need not fall first.
_ARM_REACH = {
    "gamma": 0.9,
    "width": 64,
    "learning_rate": 6e-4,
    "initial_alpha": 0.05,
    "learning_starts": 12_800,
    "total_env_steps": 150_000,
    "eval_interval": 30_000,
}

# The arm hangs far from an object that nothing but the arm moves: of a thousand random steps one touches it. So prefill
# long, prefer goals at which it was moved, and make three updates where others make one; narrow networks afford that.
_PUSHER = {
    "width": 64,
    "learning_rate": 6e-4,
    "goal_filter": 0.02,
    "actor_goals": "random",
    "initial_alpha": 0.05,
    "prefill": "uniform",
    "learning_starts": 256_000,
    "updates_per_collect": 200,
    "buffer_capacity": 3_000_000,
    "total_env_steps": 2_500_000,
    "eval_interval": 50_000,
}

RECIPES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        # The arm forgets within a few steps: at 0.99 the critic stays at chance, at 0.8 it learns.
        "reacher": {"gamma": 0.8, "total_env_steps": 500_000, "eval_interval": 50_000},
        "arm_reach": _ARM_REACH,
        "pusher_easy": _PUSHER,
        "ant": _ANT,
        "ant_u_maze": _ANT,
        "ant_u_maze_eval": _ANT,
        "point_u_maze": _POINT_MAZE,
        "point_u_maze_eval": _POINT_MAZE,
    }
)
"""Measured to learn well (docs/results), by canonical environment name."""

# An image has 12 kB, so the rows that other worlds keep would not fit, neither into memory nor into a checkpoint.
IMAGE_SIZES: Mapping[str, Any] = MappingProxyType({"buffer_capacity": 100_000, "normalize_observations": False})

# Another project's worlds are stepped in Python, one by one: few of them, an update for every four steps, and a buffer
# that keeps all. A narrow network as for the arm that reaches, twice the step size and four times the updates. And
# numbers standardised, as their places and units may be any: Fetch moves its gripper by centimetres about a place a
# metre from the origin, and of three seeds without it one never learnt to reach.
_ADAPTED = {
    "normalize_observations": True,
    "width": 64,
    "learning_rate": 6e-4,
    "num_envs": 16,
    "unroll_length": 50,
    "updates_per_collect": 200,
    "actor_goals": "mixture",
    "initial_alpha": 0.1,
    "prefill": "uniform",
    "learning_starts": 4_000,
    "buffer_capacity": 400_000,
    "total_env_steps": 300_000,
    "eval_interval": 15_000,
}


def adapted_recipe(episode_length: int) -> Mapping[str, Any]:
    """Values for an environment of which no more is known than how long its episodes are.

    A goal lies on average 1 / (1 - gamma) steps ahead of its state. That is a fifth of an episode here, so that goals
    are of its middle as well as its end and not cut short by it, but 100 steps at most, as published for 1000.
    """
    horizon = min(max(episode_length / 5, 2), 100)
    return {"gamma": 1 - 1 / horizon, **_ADAPTED}


_ANY_DEVICE = {
    "network": "residual",
    "depth": 4,
    "width": 256,
    "learning_rate": 3e-4,
    "gamma": 0.99,
    "goal_filter": 0.0,
    "actor_goals": "future",
    "initial_alpha": 1.0,
    "target_entropy_scale": 0.5,
    "actor_ema": 0.0,
    "batch_size": 256,
    "unroll_length": 62,
    "prefill": "policy",
}
_DEVICE = {
    # Sizes with which the first update comes within a minute on two cores at any depth to 256, and with which
    # collecting takes a small share of the time: one update per 66 env steps, published: 40.
    "cpu": {
        "num_envs": 64,
        "updates_per_collect": 60,
        "total_env_steps": 2_000_000,
        "eval_interval": 100_000,
        "num_eval_episodes": 64,
    },
    "cuda": {
        "num_envs": 512,
        "updates_per_collect": 800,
        "total_env_steps": 100_000_000,
        "eval_interval": 1_000_000,
        "num_eval_episodes": 128,
    },
}
DATASET_SIZES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        # On a GPU as OGBench learns from its data sets: a million updates, an evaluation every tenth of them.
        "cpu": {"total_updates": 20_000, "eval_interval": 2_000, "updates_per_collect": 200},
        "cuda": {"total_updates": 1_000_000, "eval_interval": 100_000, "updates_per_collect": 1_000},
    }
)
"""How long a run from a data set is, by kind of device."""
_PREFILL_STEPS_PER_WORLD = {"cpu": 200, "cuda": 1000}
_ROWS_PER_WORLD = 10_000


def device_sizes(kind: str, values: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Sizes for device `kind` ("cpu" or "cuda"): fixed ones, then those that follow from the `values` filled so far."""
    yield {**_ANY_DEVICE, **_DEVICE[kind]}
    worlds = values["num_envs"] or 1  # none where a data set is learnt from, which has no use for these
    yield {
        "buffer_capacity": _ROWS_PER_WORLD * worlds,
        "learning_starts": _PREFILL_STEPS_PER_WORLD[kind] * worlds,
    }


ALGORITHMS = ("crl", "sac", "td3", "gcbc", "forward_model")
_BOOTSTRAPPING = ("sac", "td3")
_STOCHASTIC = ("crl", "sac", "forward_model")
"""Actors of high value and entropy."""

OF_ALGORITHMS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        **dict.fromkeys(("representation_dim", "energy", "energy_scale", "objective", "logsumexp_penalty"), ("crl",)),
        **dict.fromkeys(("num_critics", "critic_value"), ("crl", *_BOOTSTRAPPING)),
        **dict.fromkeys(("bc_coefficient", "bc_form", "initial_alpha", "target_entropy_scale"), _STOCHASTIC),
        "actor_goals": ("crl", "forward_model"),
        "commanded_negatives": ("crl",),
        "commanded_share": _BOOTSTRAPPING,
        "exploration_noise": ("td3",),
        "num_action_candidates": tuple(name for name in ALGORITHMS if name != "gcbc"),
    }
)
"""Settings that not all algorithms read, with those that do. Setting one for another is refused."""

ALGORITHM_DEFAULTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        # SAC (Haarnoja et al. 2018) and TD3 (Fujimoto et al. 2018); of HER (Andrychowicz et al. 2017) that four of five
        # goals are later ones of the trajectory, all alike.
        name: {"num_critics": 2, "critic_value": "min", "goals": "uniform", "commanded_share": 0.2}
        for name in _BOOTSTRAPPING
    }
)
"""What an algorithm has in place of `DEFAULTS`."""
