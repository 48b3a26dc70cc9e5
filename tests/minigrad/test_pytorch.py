"""Losses, optimisers and clipping equal PyTorch's, with random numbers."""

from __future__ import annotations

import numpy as np
import pytest

from minigrad import (
    Tensor,
    cross_entropy,
    grad,
    layer_norm,
    log_softmax,
    logsumexp,
    optim,
    softplus,
)
from tests.optimisers import every_row

torch = pytest.importorskip("torch", reason="PyTorch is the oracle here: `make torch` installs it")
pytestmark = pytest.mark.oracle

SHAPES = [(3, 4), (4,), ()]


def parameters(rng, dtype="float64"):
    return [
        Tensor(rng.standard_normal(s), requires_grad=True, name=f"p{k}", dtype=dtype)
        for k, s in enumerate(SHAPES)
    ]


@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-12), ("float32", 1e-5)])
@every_row
def test_thirty_steps_equal_pytorchs(row, dtype, bound, rng):
    ours = parameters(rng, dtype)
    copies = [torch.tensor(p.value, requires_grad=True) for p in ours]
    optimiser, oracle = row.make(ours), row.theirs(torch, copies)
    for _ in range(30):
        for p, copy in zip(ours, copies, strict=True):
            p.grad = rng.standard_normal(p.shape).astype(dtype) if rng.random() < 0.8 else None
            copy.grad = None if p.grad is None else torch.tensor(p.grad)
        if all(p.grad is None for p in ours):
            continue
        optimiser.step()
        oracle.step()
        for p, copy in zip(ours, copies, strict=True):
            np.testing.assert_allclose(p.value, copy.detach().numpy(), rtol=bound, atol=bound)


@pytest.mark.parametrize("limit", [0.1, 1.0, 100.0])
def test_clipping_equals_pytorchs(limit, rng):
    ours = parameters(rng)
    for p in ours:
        p.grad = rng.standard_normal(p.shape)
    copies = [torch.tensor(p.value, requires_grad=True) for p in ours]
    for p, copy in zip(ours, copies, strict=True):
        copy.grad = torch.tensor(p.grad)
    norm = optim.clip_by_norm(ours, limit)
    np.testing.assert_allclose(norm, torch.nn.utils.clip_grad_norm_(copies, limit).item(), rtol=1e-12)
    for p, copy in zip(ours, copies, strict=True):
        np.testing.assert_allclose(p.grad, copy.grad.numpy(), rtol=1e-5)  # PyTorch divides by norm + 1e-6


def test_losses_and_their_gradients_against_pytorch(rng):
    logits, classes = rng.standard_normal((6, 4)) * 5, rng.integers(0, 4, 6)
    theirs = torch.tensor(logits, requires_grad=True)
    ours = Tensor(logits, requires_grad=True)
    pairs = {
        "cross-entropy": (
            cross_entropy(ours, classes),
            torch.nn.functional.cross_entropy(theirs, torch.tensor(classes)),
        ),
        "log-softmax": ((log_softmax(ours) ** 2).sum(), (torch.log_softmax(theirs, -1) ** 2).sum()),
        "softplus": (softplus(ours).sum(), torch.nn.functional.softplus(theirs, threshold=100).sum()),
        "layer norm": (
            (layer_norm(ours) ** 3).sum(),
            (torch.nn.functional.layer_norm(theirs, (4,)) ** 3).sum(),
        ),
        "log-sum-exp": (logsumexp(ours, 0).sum(), torch.logsumexp(theirs, 0).sum()),
    }
    for name, (y, their_y) in pairs.items():
        (their_gradient,) = torch.autograd.grad(their_y, theirs)
        np.testing.assert_allclose(y.value, their_y.detach().numpy(), rtol=1e-12, err_msg=name)
        np.testing.assert_allclose(
            grad(y, ours).value, their_gradient.numpy(), rtol=1e-10, atol=1e-13, err_msg=name
        )
