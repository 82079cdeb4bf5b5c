"""Energies, contrastive losses, actor and temperature losses: pure functions of tensors.

Letters: B rows of a batch, R size of a representation, A size of an action. `phi` is the representation of a state
and action, `psi` that of a goal; row i of a logit matrix belongs to the i-th (state, action), column j to the j-th
goal, so positives lie on the diagonal. Every function works in the dtype of its inputs and never waits for the device.
The equations, their sources and where other projects differ are set out in docs/algorithm.md.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from crl import _core, native
from crl.errors import nearest

ENERGIES = ("norm", "l2", "dot", "cosine")
BC_FORMS = ("mixture", "normalized")
CONTRASTIVE_LOSSES = ("forward_infonce", "backward_infonce", "symmetric_infonce", "binary_nce")


def energy(phi: Tensor, psi: Tensor, kind: str = "norm") -> Tensor:
    """How well each (state, action) and its own goal go together; larger is nearer.

    `norm` -|phi - psi|_2, `l2` -|phi - psi|_2^2, `dot` phi.psi, `cosine` phi.psi / (|phi| |psi|).

    Args:
        phi, psi: (..., R), broadcast against each other.
    Returns:
        (...): one energy a row.

    Where a norm is zero its slope is undefined: `norm` takes the subgradient 0 at coincident points, `cosine` counts
    a zero vector as orthogonal to everything.
    """
    _check_representations(phi, psi)
    match _known("energy", kind, ENERGIES):
        case "norm":
            difference = phi - psi
            scale = _power_of_two(difference.abs().amax(-1, keepdim=True))
            norm: Tensor = torch.linalg.vector_norm(difference / scale, dim=-1)
            return -norm * scale.squeeze(-1)
        case "l2":
            return -(phi - psi).square().sum(-1)
        case "dot":
            return (phi * psi).sum(-1)
        case _:
            return (_unit(phi) * _unit(psi)).sum(-1)


def pairwise_energy(phi: Tensor, psi: Tensor, kind: str = "norm") -> Tensor:
    """The energy of every (state, action) with every goal.

    Args:
        phi: (B, R); psi: (B', R).
    Returns:
        logits (B, B').

    Distances are summed from differences. Expanded into a matrix product, in float32 near pairs are lost to
    cancellation, and the nearest pairs are what the softmax looks at.
    """
    _check_representations(phi, psi)
    match _known("energy", kind, ENERGIES):
        case "norm" if phi.ndim == 2 and native.serves(phi) and native.serves(psi):
            return -_Distances.apply(phi, psi)  # type: ignore[no-any-return]
        case "norm":
            scale = _power_of_two(torch.maximum(phi.abs().amax(), psi.abs().amax()))
            return -_distances(phi / scale, psi / scale) * scale
        case "l2":
            return -_distances(phi, psi).square()
        case "dot":
            return phi @ psi.mT
        case _:
            return _unit(phi) @ _unit(psi).mT


def contrastive_loss(
    logits: Tensor,
    kind: str = "forward_infonce",
    logsumexp: Tensor | None = None,
    first: int = 0,
    gather: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Contrastive loss of a logit matrix whose positives are on the diagonal.

    `forward_infonce` -mean_i log softmax_j(l_ij)_i: each (state, action) finds its goal among all goals.
    `backward_infonce` the same over columns: each goal finds its (state, action).
    `symmetric_infonce` the mean of both.
    `binary_nce` mean over all B^2 entries of the binary cross-entropy of l_ij against [i = j]
    (Eysenbach et al. 2022).

    Args:
        logits: (B, B); with `gather` some rows of that matrix, while others have as many of the others.
        logsumexp: (B,), `logits.logsumexp(1)` where that is at hand.
        first: the row of the whole matrix with which `logits` begins.
        gather: (1, B) of each who has rows -> all of these, differentiably. The mean of their losses is that of the
            matrix.
    Returns:
        scalar.
    """
    if logits.ndim != 2 or (gather is None and logits.shape[0] != logits.shape[1]):
        raise ValueError(f"logits must be a square matrix (B, B), got shape {tuple(logits.shape)}")

    def over_pairs() -> Tensor:
        if gather is None:
            return logits.log_softmax(0).diagonal()
        normaliser = gather(logits.logsumexp(0, keepdim=True)).logsumexp(0)
        return logits.diagonal(first) - normaliser[first : first + len(logits)]

    match _known("contrastive_loss", kind, CONTRASTIVE_LOSSES):
        case "forward_infonce":
            return ((logits.logsumexp(1) if logsumexp is None else logsumexp) - logits.diagonal(first)).mean()
        case "backward_infonce":
            return -over_pairs().mean()
        case "symmetric_infonce":
            return -0.5 * (over_pairs() + logits.log_softmax(1).diagonal(first)).mean()
        case _:
            # softplus(l) - [i = j] l is the cross-entropy in its stable form.
            return _softplus(logits).mean() - logits.diagonal(first).sum() / logits.numel()


def contrastive_loss_of(objective: str) -> str:
    """The contrastive loss of an objective: `cpc` is forward InfoNCE, by convention with a penalty of 0.01."""
    kind = "forward_infonce" if objective == "cpc" else objective
    return _known("objective", kind, CONTRASTIVE_LOSSES)


def chance_loss(kind: str, batch_size: int) -> float:
    """The contrastive loss of the best critic that cannot tell one goal from another (all logits equal).

    ln B for the InfoNCE losses; for `binary_nce` the entropy of a coin that shows "positive" once in B.
    A critic whose loss stays here has learnt nothing.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if _known("contrastive_loss", kind, CONTRASTIVE_LOSSES) != "binary_nce":
        return math.log(batch_size)
    p = 1 / batch_size
    return -p * math.log(p) - ((1 - p) * math.log1p(-p) if p < 1 else 0.0)


def logsumexp_penalty(logits: Tensor, logsumexp: Tensor | None = None) -> Tensor:
    """mean_i (logsumexp_j l_ij)^2, which pins the scale that InfoNCE leaves free.

    Args:
        logits: (B, B').
        logsumexp: (B,), `logits.logsumexp(1)` where that is at hand.
    Returns:
        scalar.
    """
    return (logits.logsumexp(1) if logsumexp is None else logsumexp).square().mean()


def actor_loss(log_prob: Tensor, q: Tensor, alpha: Tensor) -> Tensor:
    """mean_i (alpha log pi(a_i | s_i, g_i) - q_i), with q the energy of the sampled action and the goal.

    Args:
        log_prob, q: (B,); alpha: scalar, taken as a constant.
    Returns:
        scalar.
    """
    return (alpha.detach() * log_prob - q).mean()


def regularised_actor_loss(
    log_prob: Tensor, q: Tensor, alpha: Tensor, bc_loss: Tensor, coefficient: float, form: str = "mixture"
) -> Tensor:
    """An actor's loss kept near the behaviour of the data, for offline learning.

    `mixture` (1 - c) actor_loss + c bc_loss (Eysenbach et al. 2022); `normalized` c bc_loss - mean_i q_i / m + alpha
    mean_i log pi_i, m = mean_i |q_i| taken as a constant (DDPG+BC as in Park et al. 2025).

    Args:
        log_prob, q: (B,); alpha, bc_loss: scalars; bc_loss is mean_i -log pi(a_i | s_i, g_i) of the data's actions.
        coefficient: c.
    Returns:
        scalar.
    """
    if _known("bc_form", form, BC_FORMS) == "mixture":
        return (1 - coefficient) * actor_loss(log_prob, q, alpha) + coefficient * bc_loss
    scale = q.detach().abs().mean().clamp_min(1e-6)
    return actor_loss(log_prob, q / scale, alpha) + coefficient * bc_loss


def temperature_loss(log_alpha: Tensor, log_prob: Tensor, target_entropy: float) -> Tensor:
    """alpha mean_i (-log pi_i - target_entropy): alpha falls while the policy is more random than asked.

    Args:
        log_alpha: scalar, ln of the temperature; log_prob: (B,), taken as constants; target_entropy: nats.
    Returns:
        scalar.
    """
    return log_alpha.exp() * (-log_prob.detach() - target_entropy).mean()


def tanh_gaussian_log_prob(pre_tanh: Tensor, log_std: Tensor, noise: Tensor) -> Tensor:
    """Log-density of the action tanh(x), x = mean + exp(log_std) noise.

    sum_A [ log N(x; mean, std) - log(1 - tanh(x)^2) ], the last term as 2 (ln 2 - x - softplus(-2x)). That form is
    exact; the usual log(1 - tanh^2 + 1e-6) is off by 0.05 nats and more in float32 once an action saturates.

    Args:
        pre_tanh, log_std, noise: (..., A), with pre_tanh the x above.
    Returns:
        (...).
    """
    normal = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
    return (normal - 2 * (math.log(2) - pre_tanh - _softplus(-2 * pre_tanh))).sum(-1)


def tanh_gaussian_log_prob_of(action: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log-density of a given action (..., A) in [-1, 1] under tanh(N(mean, std)): (...).

    Actions beyond 0.999 in magnitude are taken as +-0.999, as at the bounds the density has no finite inverse image.
    """
    pre_tanh = torch.atanh(action.clamp(-0.999, 0.999))
    return tanh_gaussian_log_prob(pre_tanh, log_std, (pre_tanh - mean) * (-log_std).exp())


def _softplus(x: Tensor) -> Tensor:
    """ln(1 + e^x). PyTorch's softplus becomes the identity above 20, where it is off by 2e-9."""
    return -F.logsigmoid(-x)


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """(B, R), (B', R) -> Euclidean distances (B, B'), exact for near pairs, with slope 0 where they are 0."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


class _Distances(torch.autograd.Function):
    """That for float32 rows on a CPU, by the native loops of `rust/kernels`."""

    @staticmethod
    def forward(ctx: Any, phi: Tensor, psi: Tensor) -> Tensor:
        x, y = phi.contiguous(), psi.contiguous()
        distances = x.new_empty(len(x), len(y))
        _core.distances(x.numpy(), y.numpy(), distances.numpy())
        ctx.save_for_backward(x, y, distances)
        return distances

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, y, distances = ctx.saved_tensors
        d_x, d_y = torch.empty_like(x), torch.empty_like(y)
        given = (distances, gradient.contiguous(), d_x, d_y)
        _core.distances_backward(*map(native.view, (x, y)), *map(native.view, given))
        return d_x, d_y


def _unit(x: Tensor) -> Tensor:
    """Rows of (..., R) at length 1; zero rows stay zero."""
    x = x / _power_of_two(x.abs().amax(-1, keepdim=True))
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / norm.masked_fill(norm == 0, 1)


def _power_of_two(magnitude: Tensor) -> Tensor:
    """The power of two just below each magnitude; any one where that is zero.

    Dividing by it and multiplying back changes no bit of a norm in the usual range, and keeps the squares inside the
    norm from overflowing or vanishing where representations are huge or tiny.
    """
    exponent = torch.frexp(magnitude.detach()).exponent - 1
    return torch.ldexp(torch.ones_like(magnitude), exponent)


def _check_representations(phi: Tensor, psi: Tensor) -> None:
    if phi.ndim == 0 or psi.ndim == 0 or phi.shape[-1] != psi.shape[-1]:
        raise ValueError(
            f"phi and psi must have the same last dimension, got shapes {tuple(phi.shape)} and {tuple(psi.shape)}"
        )


def check_energy(kind: str) -> None:
    """Refuse an energy that does not exist, naming those that do."""
    _known("energy", kind, ENERGIES)


def logit_statistics(logits: Tensor, logsumexp: Tensor, first: int = 0) -> dict[str, Tensor]:
    """What a (B, B) logit matrix, and the logsumexp of its rows (B,), say about the critic, as 0-d tensors.

    Or some rows of the matrix, from `first` on: means over parts of one size are those of the whole. Accuracy is the
    share of rows whose largest logit is the positive; with one row there are no negatives and their mean is given as 0.
    """
    rows, columns = logits.shape
    positive = logits.diagonal(first)
    negative_sum = logits.sum() - positive.sum()
    hits = logits.argmax(1) == torch.arange(first, first + rows, device=logits.device)
    return {
        "train/categorical_accuracy": hits.float().mean(),
        "train/logits_pos": positive.mean(),
        "train/logits_neg": negative_sum / max(rows * (columns - 1), 1),
        "train/logsumexp": logsumexp.mean(),
    }


def _known(argument: str, kind: str, kinds: tuple[str, ...]) -> str:
    if kind not in kinds:
        raise ValueError(f"{argument} must be one of {', '.join(kinds)}, got {kind!r}.{nearest(str(kind), kinds)}")
    return kind
