"""Goal-reaching worlds: hundreds at once, in MuJoCo, behind Gymnasium's vector interface.

    >>> import crl
    >>> crl.envs.spec("ant_maze").observation_dim
    29
    >>> env = crl.envs.make("ant_maze", num_envs=64, seed=0)             # doctest: +SKIP
    >>> observation, info = env.reset()                                  # doctest: +SKIP

Listing and describing environments needs NumPy alone; making one needs `pip install "crl[train]"`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crl.envs import adapters
from crl.envs.adapters import is_adapted
from crl.envs.registry import UnknownEnvironmentError, aliases, create, names, register
from crl.envs.spec import EnvSpec
from crl.envs.task import Start, Task

if TYPE_CHECKING:
    from crl.envs.goal_env import GoalVectorEnv, Workers, wrap
    from crl.envs.vector_env import VectorEnv

__all__ = [
    "EnvSpec",
    "GoalVectorEnv",
    "Start",
    "Task",
    "UnknownEnvironmentError",
    "VectorEnv",
    "Workers",
    "aliases",
    "is_adapted",
    "make",
    "names",
    "register",
    "spec",
    "wrap",
]


def spec(name: str, **options: Any) -> EnvSpec:
    """Describe the environment `name`, an alias included, with these options.

    Raises:
        UnknownEnvironmentError: no environment has this name.
        ValueError: an option it does not take, or a value it refuses.
        MissingExtraError: an `ImportError`: it is another project's, which is not installed.
    """
    if is_adapted(name):
        return adapters.spec(name, options)
    return create(name, options).spec


# For other projects' environments a GoalVectorEnv or Workers; which it is, types cannot tell from the name.
def make(name: str, num_envs: int, *, seed: int = 0, num_threads: int | None = None, **options: Any) -> VectorEnv | Any:
    """Make `num_envs` worlds of the environment `name`.

    Args:
        name: one of `names()` or `aliases()`; or that of another project's, as `gymnasium:FetchReach-v4`.
        num_envs: worlds, stepped together.
        seed: of starts and goals; the same seed gives the same episodes at any number of threads.
        num_threads: physics threads; by default as many as there are CPUs for this process.
        options: those of the environment, such as `episode_length` or `fidelity`; of another project's,
            `episode_length`, `success_threshold`, `workers` (processes) and those of its own: see docs/adapters.md.

    Raises:
        UnknownEnvironmentError: no environment has this name.
        ValueError: a bad size, or an option it does not take.
        MissingExtraError: an `ImportError`: MuJoCo or Gymnasium is missing or unusable; it says what to install.
    """
    if is_adapted(name):
        return adapters.make(name, num_envs, seed=seed, num_threads=num_threads, options=options)
    task = create(name, options)
    from crl.envs.dependencies import require_simulator

    require_simulator()
    from crl.envs.vector_env import VectorEnv

    return VectorEnv(task, num_envs, seed=seed, num_threads=num_threads)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


_HOMES = {
    "VectorEnv": "crl.envs.vector_env",
    "GoalVectorEnv": "crl.envs.goal_env",
    "Workers": "crl.envs.goal_env",
    "wrap": "crl.envs.goal_env",
}
"""Where names live that need a simulator: imported when first used."""
