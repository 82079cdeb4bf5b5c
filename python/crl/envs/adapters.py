"""Names with a prefix, `gymnasium:ID`, `ogbench:NAME` and `metaworld:TASK`: environments of other projects."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from crl.arguments import integer
from crl.envs.dependencies import require_simulator
from crl.envs.registry import UnknownEnvironmentError
from crl.envs.spec import EnvSpec
from crl.errors import nearest

if TYPE_CHECKING:
    import gymnasium

    from crl.envs.goal_env import GoalVectorEnv, MakeEnv, Workers

    Around = Callable[[gymnasium.Env[Any, Any]], gymnasium.Env[Any, Any]]

PREFIXES = ("gymnasium", "ogbench", "metaworld")


def is_adapted(name: str) -> bool:
    """Whether `name` means an environment of another project."""
    return ":" in name


def spec(name: str, options: dict[str, Any]) -> EnvSpec:
    """Describe the environment `name`, of which one is made to that end.

    Args:
        name: prefix and name.
        options: see `make`.

    Raises:
        UnknownEnvironmentError: no such prefix or name.
        ValueError: an option that the environment does not take, or it is no goal environment.
        MissingExtraError: the package is not installed.
    """
    options = {key: value for key, value in options.items() if key != "workers"}
    plain = all(isinstance(value, str | int | float | None) for value in options.values())
    return _described(name, **options) if plain else _describe(name, **options)


def make(
    name: str,
    num_envs: int,
    *,
    seed: int,
    num_threads: int | None,
    options: dict[str, Any],
    around: Around | None = None,
) -> GoalVectorEnv | Workers:
    """Worlds of the environment `name`: see `crl.envs.goal_env.GoalVectorEnv`.

    Args:
        name: prefix and name.
        num_envs: worlds.
        seed: of starts and goals, as far as the environment heeds it.
        num_threads: what `workers` is by default; None: as many as there are CPUs for this process.
        options: `workers`, processes that share the worlds (0: none, they are stepped in this one);
            `episode_length`, steps; `success_threshold`, where the environment does not tell success; all others go to
            the environment.
        around: a wrapper to put around each world, which can be sent to other processes.

    Raises:
        As `spec`.
    """
    num_envs = integer("num_envs", num_envs, 1)
    threads = None if num_threads is None else integer("num_threads", num_threads, 1)
    options = dict(options)
    workers = options.pop("workers", None)
    if workers is not None:
        workers = integer("workers", workers, 0, num_envs)
    described = spec(name, options)
    from crl.envs import goal_env, physics

    if workers is None:
        workers = min(threads or physics.cpu_count(), num_envs)
    make_env = _maker(name, options)
    if around is not None:
        make_env = partial(_wrapped, make_env, around)
    return goal_env.make(make_env, described, num_envs, seed=seed, workers=workers)


def _wrapped(make_env: MakeEnv, around: Around) -> gymnasium.Env[Any, Any]:
    return around(make_env())


def _describe(name: str, *, success_threshold: float | None = None, **options: Any) -> EnvSpec:
    make_env = _maker(name, options)
    from crl.envs.goal_env import describe

    try:
        env = make_env()
    except TypeError as error:  # an argument that is not one
        raise ValueError(f"{name}: {error}") from None
    try:
        return describe(env, name, success_threshold=success_threshold)
    finally:
        env.close()


_described = lru_cache(maxsize=16)(_describe)
"""A run asks for its environment's spec time and again, and that is to make one."""


def _maker(name: str, options: dict[str, Any]) -> partial[gymnasium.Env[Any, Any]]:
    """What makes one world; it can be sent to another process."""
    prefix, _, rest = name.partition(":")
    if prefix not in PREFIXES or not rest:
        listing = ", ".join(f"{known}:NAME" for known in PREFIXES)
        raise UnknownEnvironmentError(
            f"there is no environment {name!r}; names with a colon are {listing}.{nearest(prefix, PREFIXES)}"
        )
    require_simulator()
    from crl.envs import third_party

    options = {key: value for key, value in options.items() if key != "success_threshold"}
    if "episode_length" in options:
        options["max_episode_steps"] = options.pop("episode_length")
    return partial(getattr(third_party, f"{prefix}_env"), rest, **options)
