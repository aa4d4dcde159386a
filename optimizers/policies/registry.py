"""The policies there are."""

from __future__ import annotations

import torch

from steersman.optimizers.policies.attention import AttentionPolicy
from steersman.optimizers.policies.base import Policy
from steersman.optimizers.policies.binary import BinaryPolicy
from steersman.optimizers.policies.binary_activation import BinaryActivationPolicy
from steersman.optimizers.policies.experts import ExpertsPolicy
from steersman.optimizers.policies.gru import GRUPolicy
from steersman.optimizers.policies.int8 import Int8Policy
from steersman.optimizers.policies.mlp import MLPPolicy
from steersman.optimizers.policies.rules import RuleListPolicy
from steersman.optimizers.policies.spiking import SpikingPolicy
from steersman.optimizers.policies.staircase import StaircasePolicy
from steersman.optimizers.policies.table import TablePolicy
from steersman.optimizers.policies.ternary import TernaryPolicy
from steersman.optimizers.policies.tree import TreePolicy

POLICIES: tuple[type[Policy], ...] = (
    MLPPolicy,
    GRUPolicy,
    SpikingPolicy,
    Int8Policy,
    TernaryPolicy,
    BinaryPolicy,
    BinaryActivationPolicy,
    StaircasePolicy,
    AttentionPolicy,
    ExpertsPolicy,
    TreePolicy,
    TablePolicy,
    RuleListPolicy,
)
"""Enrolled once; names, controllers and conformance tests follow."""


def policy_kind(name: str) -> type[Policy]:
    """The class of a policy.

    Raises:
        ValueError: If no policy has that name.
    """
    by_name = {kind.name: kind for kind in POLICIES}
    if name not in by_name:
        raise ValueError(f"unknown policy {name!r}; choose one of {', '.join(sorted(by_name))}")
    return by_name[name]


def make_policy(
    policy: str | type[Policy],
    inputs: int,
    outputs: int,
    hidden: tuple[int, ...],
    *,
    gen: torch.Generator,
    dtype: torch.dtype = torch.float64,
) -> Policy:
    """A fresh policy by name.

    Args:
        policy: Name of an enrolled policy, or a class.
        inputs: Entries of an observation.
        outputs: Entries of a raw action.
        hidden: Widths of hidden layers; families with one size (a GRU's or an expert's width, leaves of a tree, bins
            of a table, rules of a list) take one number.
        gen: Source of the initial weights.
        dtype: Type of the weights.

    Raises:
        ValueError: If no policy has that name, or it cannot have these sizes.
    """
    kind = policy_kind(policy) if isinstance(policy, str) else policy
    return kind.sized(inputs, outputs, hidden, gen, dtype)
