"""Gradients for functions that have none: hard values with the derivative of something smooth."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def hard_with_gradient_of(soft: Tensor, hard: Tensor) -> Tensor:
    """The value of ``hard``, bit by bit, with the derivative of ``soft``, which must be finite.

    The straight-through estimator (Bengio, Leonard & Courville 2013) is the case in which ``soft`` is the identity.
    """
    return hard.detach() + (soft - soft.detach())


def sign(x: Tensor) -> Tensor:
    """-1 or 1, never 0: zero counts as positive."""
    return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)


def one_hot_argmax(scores: Tensor) -> Tensor:
    """1 at the largest entry of the last axis (at one of equals), 0 elsewhere."""
    places = torch.arange(scores.shape[-1], device=scores.device)
    return (places == scores.argmax(dim=-1, keepdim=True)).to(scores.dtype)


def choose(scores: Tensor, use_surrogate: bool) -> Tensor:
    """One-hot choice of the largest score, with the gradient of the softmax if a surrogate is wanted."""
    hard = one_hot_argmax(scores)
    return hard_with_gradient_of(torch.softmax(scores, dim=-1), hard) if use_surrogate else hard


def binarise(x: Tensor, use_surrogate: bool) -> Tensor:
    """Sign, with the gradient of ``clamp(x, -1, 1)`` if a surrogate is wanted (Hubara et al. 2016)."""
    return hard_with_gradient_of(nn.functional.hardtanh(x), sign(x)) if use_surrogate else sign(x)


def exceeds(x: Tensor, use_surrogate: bool) -> Tensor:
    """1 where ``x > 0``, else 0, with the gradient of the logistic function if a surrogate is wanted."""
    hard = (x > 0).to(x.dtype)
    return hard_with_gradient_of(torch.sigmoid(x), hard) if use_surrogate else hard
