"""Settings of publications: every value with where it stands, or why it is ours.

What a publication has that `crl` has not is told in docs/presets.md: the heads of other actors, other initial weights.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Value(NamedTuple):
    """A setting's value, and where it comes from."""

    value: Any
    source: str


def _said(source: str, **values: Any) -> dict[str, Value]:
    return {name: Value(value, source) for name, value in values.items()}


_RELEASED = "Wang et al. 2025"
_OF_WANG = {
    **_said(
        _RELEASED,
        algorithm="crl",
        objective="forward_infonce",
        logsumexp_penalty=0.1,
        energy="norm",
        num_critics=1,
        representation_dim=64,
        normalize_observations=False,
        width=256,
        learning_rate=3e-4,
        gamma=0.99,
        goals="geometric",
        goal_filter=0.0,
        command="env",
        actor_goals="future",
        initial_alpha=1.0,
        target_entropy_scale=0.5,
        actor_ema=0.0,
        unroll_length=62,
        num_envs=512,
    ),
    **_said(f"{_RELEASED}: 1000 steps a world", learning_starts=512_000),
    **_said(f"{_RELEASED}: by the untrained policy", prefill="policy"),
    **_said(f"{_RELEASED}: 10,000 steps a world", buffer_capacity=5_120_000),
}

_JAXGCRL = "Bortkiewicz et al. 2025"

_EYSENBACH = "Eysenbach et al. 2022"
_LEARNER_OF_2022 = {
    **_said(
        _EYSENBACH,
        algorithm="crl",
        objective="binary_nce",
        energy="dot",
        num_critics=1,
        representation_dim=64,
        normalize_observations=False,
        network="mlp_relu",
        depth=2,
        width=256,
        learning_rate=3e-4,
        gamma=0.99,
        goals="geometric",
        batch_size=256,
    ),
    **_said(f"{_EYSENBACH}: no penalty with NCE", logsumexp_penalty=0.0),
    **_said(f"{_EYSENBACH}: an experiment of the appendix alone", goal_filter=0.0),
    **_said(f"{_EYSENBACH}: random_goals 0.5, which doubles the batch instead", actor_goals="mixture"),
    **_said(f"{_EYSENBACH}: no entropy on states", initial_alpha=0.0, target_entropy_scale=0.0),
    **_said("ours: they evaluate the actor itself", actor_ema=0.0),
}
_SCHEDULE_OF_2022 = {
    **_said(_EYSENBACH, buffer_capacity=1_000_000, learning_starts=10_000, total_env_steps=1_000_000, command="env"),
    **_said(f"{_EYSENBACH}: use_random_actor", prefill="uniform"),
    **_said(f"{_EYSENBACH}: 4 actors of one world", num_envs=4),
    **_said(f"{_EYSENBACH}: 64 updates in a bundle, an update a step", unroll_length=16, updates_per_collect=64),
    **_said("ours: they evaluate beside training, episode by episode", eval_interval=25_000, num_eval_episodes=64),
}

_OFFLINE = "Eysenbach et al. 2022, offline"
_LIU = "Liu et al. 2024"
_PARK = "Park et al. 2025"

PUBLICATIONS: Mapping[str, Mapping[str, Value]] = {
    "paper": {
        **_OF_WANG,
        **_said(_RELEASED, network="residual", updates_per_collect=800, total_env_steps=100_000_000),
        **_said(f"{_RELEASED}: 100 epochs", eval_interval=1_000_000),
        **_said(f"{_RELEASED}: num_eval_envs", num_eval_episodes=128),
        **_said("Wang et al. 2025, what their README and job file run; the default is 256", batch_size=512),
    },
    "jaxgcrl": {
        **{name: value._replace(source=value.source.replace(_RELEASED, _JAXGCRL)) for name, value in _OF_WANG.items()},
        **_said(_JAXGCRL, network="mlp", depth=2, batch_size=256, num_envs=256, total_env_steps=50_000_000),
        **_said(f"{_JAXGCRL}: 1000 steps a world", learning_starts=256_000),
        **_said(f"{_JAXGCRL}: 10,000 steps a world", buffer_capacity=2_560_000),
        **_said(f"{_JAXGCRL}: one update in 15.9 steps", updates_per_collect=1000),
        **_said(f"{_JAXGCRL}: 200 evaluations", eval_interval=250_000),
        **_said(f"{_JAXGCRL}: num_eval_envs", num_eval_episodes=256),
    },
    "eysenbach2022": {**_LEARNER_OF_2022, **_SCHEDULE_OF_2022},
    "eysenbach2022_image": {
        **_LEARNER_OF_2022,
        **_SCHEDULE_OF_2022,
        **_said(f"{_EYSENBACH}: adaptive on images", initial_alpha=1.0),
        **_said(f"{_EYSENBACH}: on images", target_entropy_scale=0.0),
        **_said(f"{_EYSENBACH}: 10 actors of one world on images", num_envs=10),
        **_said(f"{_EYSENBACH}: an update a step; 16 in a bundle, here 80", unroll_length=8, updates_per_collect=80),
    },
    "eysenbach2022_offline": {
        **_LEARNER_OF_2022,
        **_said(_OFFLINE, batch_size=1024, width=1024, representation_dim=16, actor_goals="future"),
        **_said(f"{_OFFLINE}: twin critics, the least", num_critics=2, critic_value="min"),
        **_said(f"{_OFFLINE}: 5 % behaviour cloning", bc_coefficient=0.05, bc_form="mixture"),
    },
    "sgcrl": {
        **_LEARNER_OF_2022,
        **_SCHEDULE_OF_2022,
        **_said(_LIU, objective="cpc", logsumexp_penalty=0.01, total_env_steps=8_000_000),
        **_said(f"{_LIU}: one goal, fixed and far", command="single"),
    },
    "ogbench": {
        **_said(
            _PARK,
            algorithm="crl",
            objective="binary_nce",
            energy="dot",
            network="mlp_gelu_norm",
            depth=3,
            width=512,
            representation_dim=512,
            normalize_observations=False,
            learning_rate=3e-4,
            gamma=0.99,
            goals="geometric",
            batch_size=1024,
        ),
        **_said(f"{_PARK}: no penalty with NCE", logsumexp_penalty=0.0),
        **_said(f"{_PARK}: on states; on images half of it", total_updates=1_000_000),
        **_said(f"{_PARK}: 5 tasks of 50 episodes", eval_interval=100_000, num_eval_episodes=250),
        **_said("ours: what a row of metrics.csv is the mean of", updates_per_collect=5_000),
        **_said(f"{_PARK}: phi.psi / sqrt(d)", energy_scale="dimension"),
        **_said(f"{_PARK}: two, the least for the actor", num_critics=2, critic_value="min"),
        **_said(f"{_PARK}: of the same trajectory; theirs uniform, here as the critic's", actor_goals="future"),
        **_said(f"{_PARK}: DDPG+BC; per data set 0.003 (ant explore) to 3 (play)", bc_coefficient=0.1),
        **_said(f"{_PARK}: DDPG+BC", bc_form="normalized", initial_alpha=0.0, target_entropy_scale=0.0),
        **_said(f"{_PARK}: no filter", goal_filter=0.0),
        **_said("ours: they evaluate the actor itself", actor_ema=0.0),
    },
}
"""By name: the values of settings, in any order."""

OF_IMAGES = ("eysenbach2022_image",)
"""Presets for environments that show images; all others are for those that show numbers."""
