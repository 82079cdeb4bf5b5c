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

from crl.envs.registry import UnknownEnvironmentError, aliases, create, names, register
from crl.envs.spec import EnvSpec
from crl.envs.task import Start, Task

if TYPE_CHECKING:
    from crl.envs.vector_env import VectorEnv

__all__ = [
    "EnvSpec",
    "Start",
    "Task",
    "UnknownEnvironmentError",
    "VectorEnv",
    "aliases",
    "make",
    "names",
    "register",
    "spec",
]


def spec(name: str, **options: Any) -> EnvSpec:
    """Describe the environment `name`, an alias included, with these options.

    Raises:
        UnknownEnvironmentError: no environment has this name.
        ValueError: an option it does not take, or a value it refuses.
    """
    return create(name, options).spec


def make(name: str, num_envs: int, *, seed: int = 0, num_threads: int | None = None, **options: Any) -> VectorEnv:
    """Make `num_envs` worlds of the environment `name`.

    Args:
        name: one of `names()` or `aliases()`.
        num_envs: worlds, stepped together.
        seed: of starts and goals; the same seed gives the same episodes at any number of threads.
        num_threads: physics threads; by default as many as there are CPUs for this process.
        options: those of the environment, such as `episode_length` or `fidelity`.

    Raises:
        UnknownEnvironmentError: no environment has this name.
        ValueError: a bad size, or an option it does not take.
        MissingExtraError: an `ImportError`: MuJoCo or Gymnasium is missing or unusable; it says what to install.
    """
    task = create(name, options)
    from crl.envs.dependencies import require_simulator

    require_simulator()
    from crl.envs.vector_env import VectorEnv

    return VectorEnv(task, num_envs, seed=seed, num_threads=num_threads)


def __getattr__(name: str) -> Any:
    if name == "VectorEnv":
        from crl.envs.vector_env import VectorEnv

        return VectorEnv
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
