"""GCBC: behavioural cloning of what reached a goal (Ding et al. 2019; Ghosh et al. 2021). No critic."""

import torch
from torch import Tensor

from crl import losses
from crl.algorithms.base import Algorithm, Rows
from crl.policy import Networks


class GCBC(Algorithm):
    """L = -mean log pi(a_i | s_i, g_i), g_i what the trajectory of row i achieved later."""

    def make_networks(self, generator: torch.Generator) -> Networks:
        return Networks(self.spec, self.config, generator)

    def backward(self, rows: Rows) -> dict[str, Tensor]:
        with self.numerics.network_precision():
            mean, log_std = self.networks.actor(rows.observation, rows.goal)
        loss = -losses.tanh_gaussian_log_prob_of(rows.action, mean, log_std).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return {"train/bc_loss": loss.detach()}
