"""Energies and losses against independently computed values (golden.npz), hand arithmetic and finite differences."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from crl import losses

GOLDEN = np.load(Path(__file__).with_name("golden.npz"))
KINDS = {
    "forward_infonce": "fwd_infonce",
    "backward_infonce": "bwd_infonce",
    "symmetric_infonce": "sym_infonce_mean",
    "binary_nce": "binary_nce_mean",
}
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
dtypes = pytest.mark.parametrize("dtype", TOLERANCE, ids=["float64", "float32"])


def golden(name: str, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.from_numpy(np.asarray(GOLDEN[name])).to(dtype)


def assert_golden(actual: Tensor, name: str, scale: float = 1.0) -> None:
    """Equal to the golden value within the tolerance of its dtype, relative to the largest entry."""
    expected = golden(name) * scale
    error = (actual.detach().double() - expected).abs().max() / expected.abs().max()
    assert error <= TOLERANCE[actual.dtype], f"{name}: relative error {error:.1e}"


def representations(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return golden("sa_repr", dtype).requires_grad_(), golden("g_repr", dtype).requires_grad_()


@dtypes
@pytest.mark.parametrize("energy", losses.ENERGIES)
def test_energies_match_golden(energy: str, dtype: torch.dtype) -> None:
    phi, psi = representations(dtype)
    assert_golden(losses.pairwise_energy(phi, psi, energy), f"energy/{energy}/matrix")
    assert_golden(losses.energy(phi, psi, energy), f"energy/{energy}/diag")


@dtypes
@pytest.mark.parametrize("energy", losses.ENERGIES)
@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_gradients_match_golden(kind: str, energy: str, dtype: torch.dtype) -> None:
    phi, psi = representations(dtype)
    loss = losses.contrastive_loss(losses.pairwise_energy(phi, psi, energy), kind)
    assert_golden(loss, f"loss/{energy}/{KINDS[kind]}/value")
    loss.backward()
    for tensor, name in ((phi, "d_sa"), (psi, "d_g")):
        if kind == "symmetric_infonce":  # golden gives the two halves
            halves = [golden(f"loss/{energy}/{half}_infonce/{name}") for half in ("fwd", "bwd")]
            expected = (halves[0] + halves[1]) / 2
            error = (tensor.grad.double() - expected).abs().max() / expected.abs().max()
            assert error <= TOLERANCE[dtype]
        else:
            assert_golden(tensor.grad, f"loss/{energy}/{KINDS[kind]}/{name}")


@dtypes
@pytest.mark.parametrize("energy", losses.ENERGIES)
@pytest.mark.parametrize("name", ["lse_penalty_rows", "crl_default"])
def test_penalty_and_published_loss_match_golden(name: str, energy: str, dtype: torch.dtype) -> None:
    phi, psi = representations(dtype)
    logits = losses.pairwise_energy(phi, psi, energy)
    loss = losses.logsumexp_penalty(logits)
    if name == "crl_default":
        loss = losses.contrastive_loss(logits) + 0.1 * loss
    loss.backward()
    assert_golden(loss, f"loss/{energy}/{name}/value")
    assert_golden(phi.grad, f"loss/{energy}/{name}/d_sa")
    assert_golden(psi.grad, f"loss/{energy}/{name}/d_g")


@dtypes
@pytest.mark.parametrize("kind", KINDS)
def test_extreme_logits_match_golden(kind: str, dtype: torch.dtype) -> None:
    logits = golden("stable/logits", dtype).requires_grad_()
    loss = losses.contrastive_loss(logits, kind)
    loss.backward()
    assert_golden(loss, f"stable/{KINDS[kind]}")
    assert_golden(logits.grad, f"stable/{KINDS[kind]}/d_logits")


@dtypes
def test_extreme_logits_of_the_published_loss_match_golden(dtype: torch.dtype) -> None:
    logits = golden("stable/logits", dtype).requires_grad_()
    loss = losses.contrastive_loss(logits) + 0.1 * losses.logsumexp_penalty(logits)
    loss.backward()
    assert_golden(loss, "stable/crl_default")
    assert_golden(logits.grad, "stable/crl_default/d_logits")


@pytest.mark.parametrize("energy", losses.ENERGIES)
def test_accuracy_matches_golden(energy: str) -> None:
    logits = losses.pairwise_energy(*representations(torch.float64), energy)
    accuracy = losses.logit_statistics(logits, logits.logsumexp(1))["train/categorical_accuracy"]
    assert accuracy == pytest.approx(float(GOLDEN[f"accuracy/{energy}/rows"]))


def test_two_by_two_by_hand() -> None:
    # l = [[0, ln 3], [ln 2, 0]]: row 0 gives its positive 1/(1+3), row 1 gives 1/(2+1);
    # column 0 gives 1/(1+2), column 1 gives 1/(3+1).
    logits = torch.tensor([[0.0, math.log(3)], [math.log(2), 0.0]], dtype=torch.float64)
    rows = (math.log(4) + math.log(3)) / 2
    assert losses.contrastive_loss(logits, "forward_infonce").item() == pytest.approx(rows)
    assert losses.contrastive_loss(logits, "backward_infonce").item() == pytest.approx(rows)
    assert losses.contrastive_loss(logits.flip(0), "forward_infonce").item() == pytest.approx(
        (math.log(1.5) + math.log(4 / 3)) / 2
    )
    # Sigmoids: positives 1/2 each, negatives 3/4 and 2/3 wrongly positive.
    nce = (2 * math.log(2) + math.log(4) + math.log(3)) / 4
    assert losses.contrastive_loss(logits, "binary_nce").item() == pytest.approx(nce)
    # logsumexp of the rows: ln(1 + 3), ln(2 + 1).
    penalty = (math.log(4) ** 2 + math.log(3) ** 2) / 2
    assert losses.logsumexp_penalty(logits).item() == pytest.approx(penalty)
    statistics = {name: value.item() for name, value in losses.logit_statistics(logits, logits.logsumexp(1)).items()}
    assert statistics == pytest.approx(
        {
            "train/categorical_accuracy": 0.0,
            "train/logits_pos": 0.0,
            "train/logits_neg": (math.log(3) + math.log(2)) / 2,
            "train/logsumexp": (math.log(4) + math.log(3)) / 2,
        }
    )


@pytest.mark.parametrize("kind", ["forward_infonce", "backward_infonce"])
def test_infonce_ignores_a_shift_of_its_rows_or_columns(kind: str) -> None:
    logits = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shift = torch.arange(6.0, dtype=torch.float64)
    shifted = logits + (shift[:, None] if kind == "forward_infonce" else shift)
    torch.testing.assert_close(losses.contrastive_loss(shifted, kind), losses.contrastive_loss(logits, kind))


@pytest.mark.parametrize("kind", losses.CONTRASTIVE_LOSSES)
@pytest.mark.parametrize("energy", losses.ENERGIES)
def test_gradients_match_finite_differences(kind: str, energy: str) -> None:
    generator = torch.Generator().manual_seed(1)
    phi, psi = (torch.randn(5, 3, dtype=torch.float64, generator=generator, requires_grad=True) for _ in range(2))

    def loss(phi: Tensor, psi: Tensor) -> Tensor:
        logits = losses.pairwise_energy(phi, psi, energy)
        paired = losses.energy(phi, psi, energy).sum()
        return losses.contrastive_loss(logits, kind) + losses.logsumexp_penalty(logits) + paired

    assert torch.autograd.gradcheck(loss, (phi, psi))


@pytest.mark.parametrize("energy", losses.ENERGIES)
def test_paired_energy_is_the_diagonal_and_broadcasts(energy: str) -> None:
    generator = torch.Generator().manual_seed(2)
    phi, psi = (torch.randn(7, 4, dtype=torch.float64, generator=generator) for _ in range(2))
    logits = losses.pairwise_energy(phi, psi, energy)
    torch.testing.assert_close(losses.energy(phi, psi, energy), logits.diagonal())
    torch.testing.assert_close(losses.energy(phi[:, None], psi, energy), logits)
    assert losses.pairwise_energy(phi, psi[:3], energy).shape == (7, 3)


@pytest.mark.parametrize("energy", losses.ENERGIES)
@pytest.mark.parametrize("points", ["coincident", "duplicates", "zeros", "one row"])
def test_degenerate_representations_have_finite_gradients(points: str, energy: str) -> None:
    phi = torch.randn(8, 4, generator=torch.Generator().manual_seed(3))
    phi = {"duplicates": phi[:1].expand(8, 4), "zeros": torch.zeros(8, 4), "one row": phi[:1]}.get(points, phi)
    phi = phi.clone().requires_grad_()
    psi = phi.detach().clone().requires_grad_()
    logits = losses.pairwise_energy(phi, psi, energy)
    paired = losses.energy(phi, psi, energy)
    torch.testing.assert_close(paired, logits.diagonal())
    total = paired.sum() + losses.logsumexp_penalty(logits)
    for kind in losses.CONTRASTIVE_LOSSES:
        total = total + losses.contrastive_loss(logits, kind)
    total.backward()
    assert total.isfinite()
    for grad in (phi.grad, psi.grad):
        assert grad.isfinite().all()
        assert grad.abs().max() < 100
    if energy == "norm":
        assert (paired == 0).all()


@pytest.mark.parametrize("scale", [1e30, 1e-30])
@pytest.mark.parametrize("energy", ["norm", "cosine"])
def test_huge_and_tiny_representations(energy: str, scale: float) -> None:
    generator = torch.Generator().manual_seed(4)
    phi, psi = (torch.randn(6, 4, generator=generator) for _ in range(2))
    big_phi, big_psi = (phi * scale).requires_grad_(), (psi * scale).requires_grad_()
    logits = losses.pairwise_energy(big_phi, big_psi, energy)
    expected = losses.pairwise_energy(phi, psi, energy) * (scale if energy == "norm" else 1)
    tolerance = {"rtol": 1e-5, "atol": 1e-6 * expected.abs().max().item()}
    torch.testing.assert_close(logits, expected, **tolerance)
    torch.testing.assert_close(losses.energy(big_phi, big_psi, energy), logits.diagonal(), **tolerance)
    loss = losses.contrastive_loss(logits) + losses.energy(big_phi, big_psi, energy).mean()
    loss.backward()
    assert loss.isfinite()
    assert big_phi.grad.isfinite().all()
    assert big_psi.grad.isfinite().all()


@pytest.mark.parametrize("distance", [1e-2, 1e-4, 1e-6])
def test_near_pairs_keep_float32_accuracy(distance: float) -> None:
    generator = torch.Generator().manual_seed(5)
    phi = torch.randn(32, 64, generator=generator)
    psi = phi + distance * torch.randn(32, 64, generator=generator)
    exact = -(phi.double() - psi.double()).norm(dim=1)
    for near in (losses.energy(phi, psi), losses.pairwise_energy(phi, psi).diagonal()):
        torch.testing.assert_close(near.double(), exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", losses.CONTRASTIVE_LOSSES)
@pytest.mark.parametrize("batch_size", [1, 2, 256])
def test_chance_is_the_best_that_equal_logits_reach(kind: str, batch_size: int) -> None:
    chance = losses.chance_loss(kind, batch_size)
    shifts = torch.linspace(-20, 20, 4001, dtype=torch.float64)
    if kind != "binary_nce":
        shifts = shifts[::1000]
    constant = [losses.contrastive_loss(s.expand(batch_size, batch_size), kind).item() for s in shifts]
    assert min(constant) == pytest.approx(chance, abs=1e-4)
    assert chance == pytest.approx(math.log(batch_size)) or kind == "binary_nce"


def _policy(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    mean, raw = (golden(f"policy/{name}", dtype).requires_grad_() for name in ("mean", "raw_log_std"))
    return mean, raw, golden("policy/noise", dtype)


@dtypes
def test_log_prob_matches_golden(dtype: torch.dtype) -> None:
    mean, raw, noise = _policy(dtype)
    log_std = -5 + 3.5 * (raw.tanh() + 1)
    log_prob = losses.tanh_gaussian_log_prob(mean + log_std.exp() * noise, log_std, noise)
    assert_golden(log_prob, "policy/log_prob_exact")
    log_prob.sum().backward()
    assert_golden(mean.grad, "policy/log_prob_exact/d_mean")
    assert_golden(raw.grad, "policy/log_prob_exact/d_raw_log_std")


def test_log_prob_is_that_of_torchs_transformed_normal() -> None:
    generator = torch.Generator().manual_seed(6)
    mean, log_std, noise = (torch.randn(64, 3, dtype=torch.float64, generator=generator) for _ in range(3))
    pre_tanh = mean + log_std.exp() * noise
    normal = torch.distributions.Normal(mean, log_std.exp())
    tanh = torch.distributions.transforms.TanhTransform(cache_size=1)
    expected = torch.distributions.TransformedDistribution(normal, [tanh]).log_prob(tanh(pre_tanh)).sum(-1)
    torch.testing.assert_close(losses.tanh_gaussian_log_prob(pre_tanh, log_std, noise), expected)


def test_log_prob_integrates_to_one() -> None:
    noise = torch.linspace(-9, 9, 20001, dtype=torch.float64)[:, None]
    log_std = torch.full_like(noise, 0.3)
    pre_tanh = 0.5 + log_std.exp() * noise
    density = losses.tanh_gaussian_log_prob(pre_tanh, log_std, noise).exp()
    assert torch.trapezoid(density, torch.tanh(pre_tanh[:, 0])).item() == pytest.approx(1, abs=1e-6)


@dtypes
def test_actor_and_temperature_losses_match_golden(dtype: torch.dtype) -> None:
    log_alpha = golden("policy/log_alpha", dtype).requires_grad_()
    log_prob = golden("policy/log_prob_eps1e-6", dtype)
    loss = losses.temperature_loss(log_alpha, log_prob, float(GOLDEN["policy/target_entropy"]))
    assert_golden(loss, "policy/alpha_loss")
    assert_golden(losses.actor_loss(log_prob, golden("policy/q", dtype), log_alpha.exp()), "policy/actor_loss")
    loss.backward()
    assert_golden(log_alpha.grad, "policy/alpha_loss/d_log_alpha")


def test_temperature_does_not_learn_from_the_actor_nor_the_actor_from_the_temperature() -> None:
    log_alpha = torch.tensor(0.3, requires_grad=True)
    log_prob = torch.tensor([1.0, 2.0], requires_grad=True)
    losses.actor_loss(log_prob, torch.zeros(2), log_alpha.exp()).backward()
    assert log_alpha.grad is None
    torch.testing.assert_close(log_prob.grad, log_alpha.detach().exp().expand(2) / 2)
    log_prob.grad = None
    losses.temperature_loss(log_alpha, log_prob, -1.0).backward()
    assert log_prob.grad is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: losses.energy(x, x, "nrom"), r"energy must be one of norm, .* got 'nrom'.*'norm'"),
        (lambda x: losses.pairwise_energy(x, x, "L3"), "energy must be one of"),
        (lambda x: losses.contrastive_loss(x @ x.T, "infonce"), "contrastive_loss must be one of .*'infonce'"),
        (lambda x: losses.chance_loss("binary", 2), "contrastive_loss must be one of .*'binary_nce'"),
        (lambda x: losses.chance_loss("binary_nce", 0), "batch_size must be at least 1, got 0"),
        (lambda x: losses.contrastive_loss(x), r"square matrix \(B, B\), got shape \(3, 2\)"),
        (lambda x: losses.energy(x, x[:, :1]), r"same last dimension, got shapes \(3, 2\) and \(3, 1\)"),
        (lambda x: losses.pairwise_energy(x, x[:, :1]), "same last dimension"),
    ],
)
def test_bad_input_is_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(3, 2))


@pytest.mark.parametrize("rows", [(32, 32), (32, 8), (8, 32)])
def test_float32_distances_and_their_slopes_are_those_of_float64(rows: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(7)
    phi, psi = (5 * torch.randn(count, 64, generator=generator) for count in rows)
    psi[3] = phi[2] + 1e-3  # near, and not on the diagonal
    psi[5] = phi[1]  # coincident likewise
    upstream = torch.randn(rows, generator=generator)
    upstream[1, 5] = 100.0
    exact = [x.double().requires_grad_() for x in (phi, psi)]
    expected = losses.pairwise_energy(*exact)
    expected.backward(upstream.double())
    single = [x.requires_grad_() for x in (phi, psi)]
    got = losses.pairwise_energy(*single)
    got.backward(upstream)
    assert got.dtype == torch.float32
    assert got[1, 5] == 0
    torch.testing.assert_close(got.double(), expected, rtol=1e-6, atol=0)
    for mine, theirs in zip(single, exact, strict=True):
        torch.testing.assert_close(mine.grad.double(), theirs.grad, rtol=1e-5, atol=1e-5)


def test_losses_take_a_logsumexp_that_is_at_hand() -> None:
    logits = torch.randn(6, 6, generator=torch.Generator().manual_seed(8))
    logsumexp = logits.logsumexp(1)
    assert losses.contrastive_loss(logits, logsumexp=logsumexp) == losses.contrastive_loss(logits)
    assert losses.logsumexp_penalty(logits, logsumexp) == losses.logsumexp_penalty(logits)
