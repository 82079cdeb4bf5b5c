"""Algorithms: each is one file that has its networks and states its losses. The rest is the same for all."""

from crl.algorithms.base import Algorithm, Given, Rows
from crl.algorithms.c_learning import CLearning
from crl.algorithms.contrastive import Contrastive
from crl.algorithms.forward_model import ForwardModel
from crl.algorithms.gcbc import GCBC
from crl.algorithms.sac import SAC
from crl.algorithms.td3 import TD3
from crl.bootstrap import NCE_WEIGHTS
from crl.losses import CONTRASTIVE_LOSSES
from crl.policy import Config

__all__ = ["GCBC", "SAC", "TD3", "Algorithm", "CLearning", "Contrastive", "ForwardModel", "Given", "Rows", "of"]

ALGORITHMS: dict[str, type[Algorithm]] = {
    "crl": Contrastive,
    "sac": SAC,
    "td3": TD3,
    "gcbc": GCBC,
    "forward_model": ForwardModel,
}
OBJECTIVES: dict[str, type[Algorithm]] = {
    **dict.fromkeys((*CONTRASTIVE_LOSSES, "cpc"), Contrastive),
    **dict.fromkeys(NCE_WEIGHTS, CLearning),
}
"""What learns each objective of the algorithm `crl`."""


def of(config: Config) -> type[Algorithm]:
    """The algorithm that `config` names.

    Raises:
        ValueError: there is none of that name, or no such objective.
    """
    if config.algorithm not in ALGORITHMS:
        raise ValueError(f"algorithm must be one of {', '.join(ALGORITHMS)}, got {config.algorithm!r}")
    if config.algorithm != "crl":
        return ALGORITHMS[config.algorithm]
    if config.objective not in OBJECTIVES:
        raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, got {config.objective!r}")
    return OBJECTIVES[config.objective]
