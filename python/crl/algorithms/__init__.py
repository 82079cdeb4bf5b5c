"""Algorithms: each is one file that has its networks and states its losses. The rest is the same for all."""

from crl.algorithms.base import Algorithm, Rows
from crl.algorithms.contrastive import Contrastive
from crl.policy import Config

__all__ = ["Algorithm", "Contrastive", "Rows", "of"]

ALGORITHMS: dict[str, type[Algorithm]] = {"crl": Contrastive}


def of(config: Config) -> type[Algorithm]:
    """The algorithm that `config` names.

    Raises:
        ValueError: there is none of that name.
    """
    if config.algorithm not in ALGORITHMS:
        raise ValueError(f"algorithm must be one of {', '.join(ALGORITHMS)}, got {config.algorithm!r}")
    return ALGORITHMS[config.algorithm]
