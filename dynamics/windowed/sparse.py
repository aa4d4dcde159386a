"""A residual network with few ReLUs: small enough for mixed-integer programs."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steersman.dynamics.base import Trajectories
from steersman.dynamics.windowed.base import Batches, Windowed
from steersman.dynamics.windowed.ensemble import train
from steersman.dynamics.windowed.relu import Kind, ReluLayer, ReluSystem
from steersman.dynamics.windowed.settings import WindowSettings
from steersman.envs.settings import Count, NotNegative, Positive, Whole
from steersman.optimizers.resumable import Descent, Resumable

Net = dict[str, Tensor]
"""``w0, b0, w1, b1, ..`` and ``skip``; weights are ``[inputs, outputs]``."""


@dataclass(frozen=True, kw_only=True)
class SparseSettings(WindowSettings):
    """Settings of :class:`SparseNeuralDynamics`.

    Attributes:
        relus: Neurons that may stay ReLUs, in all layers together.
        dense_steps: Largest number of gradient steps before pruning.
        rounds: Rounds of pruning; the number of ReLUs falls by equal factors.
        round_steps: Gradient steps of each round.
        tune_steps: Largest number of gradient steps after pruning.
        temperature: Of the Gumbel softmax.
        sparsity: Weight of the penalty on ReLUs above the round's number.
    """

    relus: Whole = 16
    context: Count = 2
    dense_steps: Count = 1500
    rounds: Count = 3
    round_steps: Count = 300
    tune_steps: Count = 1500
    temperature: Positive = 0.5
    sparsity: NotNegative = 0.3
    batch: Count = 256
    rate: Positive = 3e-3
    patience: Count = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not len(self.hidden) > 0:
            raise ValueError(f"hidden must name at least one width of at least 1, got {self.hidden}")
        if self.relus > sum(self.hidden):
            raise ValueError(f"relus must lie in 0..{sum(self.hidden)}, the sum of hidden, got {self.relus}")


class SparseNeuralDynamics(Windowed):
    """``y+ = y + delta * (skip window + network(window))`` whose hidden neurons are ReLU, identity or zero.

    After Liu et al. (NeurIPS 2023, arXiv 2312.12791): a dense ReLU network is trained on its own rollouts; in
    rounds of pruning every ReLU that is left chooses among the three kinds by a straight-through Gumbel softmax,
    under a penalty on their number; each round keeps the neurons most inclined to be ReLUs and makes the choice of
    the others final; at last the weights are tuned with the masks fixed. A linear path from input to output, which
    costs a program no binary, carries what is linear. The readout of z is affine in the window.
    """

    def __init__(self, settings: SparseSettings | None = None) -> None:
        """Store the settings."""
        super().__init__()
        self.settings = settings or SparseSettings()
        self.context = self.settings.context

    # ------------------------------------------------------------------ fit

    def fit(self, data: Trajectories) -> SparseNeuralDynamics:
        """Forget everything, then train, prune and tune from ``settings.seed``.

        Raises:
            ValueError: If the data are not finite, do not fit the bound problem or hold fewer than two windows.
        """
        s = self.settings
        padded, gen, resumable = self._begin(data, s)
        batches = Batches(self, padded, ahead=s.rollout, members=1, batch=s.batch, validation=s.validation, gen=gen)
        net = _fresh((batches.inputs + batches.m, *s.hidden, batches.nk), batches.arx(), gen)
        masks = [_one_hot(torch.full((width,), Kind.RELU, device=data.y.device)) for width in s.hidden]
        self._descend(net, masks, batches, s.dense_steps, resumable, "dense")
        dense = sum(s.hidden)
        for i in range(s.rounds):
            left = round(dense * (max(s.relus, 0.5) / dense) ** ((i + 1) / s.rounds))
            left = left if i < s.rounds - 1 else s.relus
            masks = self._prune(net, masks, batches, left, resumable, f"prune-{i}")
        self._descend(net, masks, batches, s.tune_steps, resumable, "tune")
        for name, value in net.items():
            self._learn(f"net_{name}_", value.to(data.y.dtype), trainable=True)
        for i, mask in enumerate(masks):
            self._learn(f"kind_{i}_", mask.argmax(dim=1).to(torch.int8))
        return self

    def _trainable(self, name: str) -> bool:
        return name.startswith("net_")

    def _descend(
        self, net: Net, masks: list[Tensor], batches: Batches, steps: int, resumable: Resumable, stage: str
    ) -> None:
        """Train the weights with the masks fixed."""

        @torch.no_grad()
        def validate() -> float:
            return float(batches.error(lambda x, _: _forward(net, masks, x), batches.held_back()))

        train(
            [net], lambda: batches.error(lambda x, _: _forward(net, masks, x), batches.fresh()), validate,
            steps=steps, rate=self.settings.rate, patience=self.settings.patience, every=100, progress=self.progress,
            gen=batches.gen, resumable=resumable, stage=stage,
        )  # fmt: skip

    def _prune(
        self, net: Net, masks: list[Tensor], batches: Batches, left: int, resumable: Resumable, stage: str
    ) -> list[Tensor]:
        """One round: weights and masks together, then final masks with ``left`` ReLUs."""
        s = self.settings
        free = [mask[:, Kind.RELU] > 0 for mask in masks]
        logits = [torch.zeros(len(mask), 3, device=mask.device, requires_grad=True) for mask in masks]
        weights = [t.requires_grad_() for t in net.values()]
        adam = torch.optim.Adam([{"params": weights, "lr": s.rate / 3}, {"params": logits, "lr": 0.03}])

        def descend(i: int) -> bool:
            drawn = [
                torch.where(f[:, None], _gumbel(log, s.temperature, batches.gen), mask)
                for log, mask, f in zip(logits, masks, free, strict=True)
            ]
            chance = torch.cat([torch.softmax(log, 1)[f, Kind.RELU] for log, f in zip(logits, free, strict=True)])
            excess = torch.relu(chance.sum() - left) / max(left, 1)
            error = batches.error(lambda x, _: _forward(net, drawn, x), batches.fresh())
            adam.zero_grad()
            (error + s.sparsity * excess).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(weights, 10.0)
            adam.step()
            if (i + 1) % 100 == 0:
                self.progress((i + 1) / s.round_steps, f"pruning to {left} ReLUs, error {float(error.detach()):.3g}")
            return False

        resumable.run(stage, Descent([*weights, *logits], adam, gen=batches.gen), s.round_steps, descend)
        for t in weights:
            t.requires_grad_(False)
        return _decide([log.detach() for log in logits], masks, free, left)

    # ------------------------------------------------------------------ prediction

    def _net(self) -> tuple[Net, list[Tensor]]:
        net: Net = {n[4:-1]: t for n, t in self._parameters.items() if n.startswith("net_") and t is not None}
        kinds = [getattr(self, f"kind_{i}_") for i in range(len(net) // 2 - 1)]
        return net, [_one_hot(kind.long()).to(net["skip"]) for kind in kinds]

    def _change(self, phi: Float[Tensor, "n inputs"], periods: Tensor | None) -> Float[Tensor, "n nk"]:
        return _forward(*self._net(), phi)

    def relu_system(self) -> ReluSystem:
        """The same model as layers for encoders, with neurons that are zero left out and scales folded in.

        Raises:
            RuntimeError: Before a fit.
        """
        self._ready()
        net, length = {name: t.detach() for name, t in self._net()[0].items()}, self.context
        mean = torch.cat([self.y_mean_.repeat(length), self.u_mean_.repeat(length)])
        std = torch.cat([self.y_std_.repeat(length), self.u_std_.repeat(length)])
        depth, scale = len(net) // 2 - 1, self.y_std_ * self.delta_
        layers, used = [], torch.arange(len(mean), device=mean.device)
        for i in range(depth):
            kind: Tensor = getattr(self, f"kind_{i}_")
            alive = (kind != Kind.ZERO).nonzero().flatten()
            weight, bias = net[f"w{i}"][used][:, alive].T, net[f"b{i}"][alive]
            if i == 0:
                bias, weight = bias - weight @ (mean / std), weight / std
            layers.append(ReluLayer(weight, bias, kind[alive]))
            used = alive
        nk, ns = len(self.y_mean_), len(mean) - len(self.u_mean_)
        skip = scale[:, None] * net["skip"].T / std
        offset = scale * net[f"b{depth}"] - skip @ mean
        skip[:, (length - 1) * nk : length * nk] += torch.eye(nk, dtype=skip.dtype, device=skip.device)
        Cz = self.z_weight_.T / std[:ns]
        if any(not len(layer.bias) for layer in layers):  # a layer without neurons passes nothing on but its bias
            return self._severed(net, layers, skip, offset, scale, Cz, mean[:ns])
        last = scale[:, None] * net[f"w{depth}"][used].T
        return ReluSystem(tuple(layers), last, skip, offset, Cz, self.z_offset_ - Cz @ mean[:ns], length)

    def _severed(
        self, net: Net, layers: list[ReluLayer], skip: Tensor, offset: Tensor, scale: Tensor, Cz: Tensor, mean: Tensor
    ) -> ReluSystem:
        """The linear model that is left when some layer has no neuron: later layers are constants."""
        hidden = skip.new_zeros(1, 0)
        empty = max(i for i, layer in enumerate(layers) if not len(layer.bias))
        for layer in layers[empty + 1 :]:
            hidden = layer(hidden)
        constant = hidden[0] @ net[f"w{len(layers)}"][(getattr(self, f"kind_{len(layers) - 1}_") != Kind.ZERO)]
        none = skip.new_zeros(skip.shape[0], 0)
        dz = self.z_offset_ - Cz @ mean
        return ReluSystem((), none, skip, offset + scale * constant, Cz, dz, self.context)


def _fresh(sizes: tuple[int, ...], skip: Tensor, gen: torch.Generator) -> Net:
    """Uniform weights in ``+-sqrt(3 / fan_in)``, the output layer zero: training starts from the linear map."""
    net: Net = {}
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        last = i == len(sizes) - 2
        net[f"w{i}"] = (2 * torch.rand(a, b, generator=gen) - 1) * (0.0 if last else math.sqrt(3 / a))
        net[f"b{i}"] = (torch.rand(b, generator=gen) - 0.5) * (0.0 if last else 0.5)
    net["skip"] = skip.float().clone()
    return {name: value.to(skip.device) for name, value in net.items()}


def _forward(net: Net, masks: list[Tensor], x: Float[Tensor, "*b inputs"]) -> Float[Tensor, "*b outputs"]:
    """Linear path plus the network, each hidden neuron a mixture of its kinds by ``masks`` ``[width, 3]``."""
    hidden = x
    for i, mask in enumerate(masks):
        pre = hidden @ net[f"w{i}"] + net[f"b{i}"]
        hidden = mask[:, Kind.RELU] * torch.relu(pre) + mask[:, Kind.IDENTITY] * pre
    return x @ net["skip"] + hidden @ net[f"w{len(masks)}"] + net[f"b{len(masks)}"]


def _gumbel(logits: Float[Tensor, "w 3"], temperature: float, gen: torch.Generator) -> Float[Tensor, "w 3"]:
    """A one-hot draw whose gradient is that of the softmax (Jang et al. 2017)."""
    noise = -torch.log(-torch.log(torch.rand(logits.shape, generator=gen).clamp(1e-9, 1 - 1e-7)))
    soft = torch.softmax((logits + noise.to(logits.device)) / temperature, dim=1)
    return _one_hot(soft.argmax(dim=1)) + soft - soft.detach()


def _one_hot(kind: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(kind, 3).float()


def _decide(logits: list[Tensor], masks: list[Tensor], free: list[Tensor], left: int) -> list[Tensor]:
    """Final kinds: the ``left`` free neurons most inclined to be ReLUs, the others by the larger of their logits."""
    chance = torch.cat([
        torch.where(f, torch.softmax(log, 1)[:, Kind.RELU], -1.0) for log, f in zip(logits, free, strict=True)
    ])  # fmt: skip
    stays = torch.zeros_like(chance, dtype=torch.bool)
    stays[torch.topk(chance, min(left, int((chance >= 0).sum()))).indices] = True
    decided = []
    for log, mask, f, stay in zip(logits, masks, free, torch.split(stays, [len(m) for m in masks]), strict=True):
        linear = torch.where(log[:, Kind.IDENTITY] > log[:, Kind.ZERO], int(Kind.IDENTITY), int(Kind.ZERO))
        now = torch.where(f, linear, mask.argmax(dim=1))
        decided.append(_one_hot(torch.where(stay, int(Kind.RELU), now)))
    return decided
