"""A network in place of the swing's integration: fitted, scored, saved, and exported for quick single queries."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from steersman.dynamics.pinn.data import SwingGrid
from steersman.dynamics.pinn.losses import Kind, Points, make_loss, residual
from steersman.dynamics.pinn.network import Form, Plain, Separable, SwingNetwork
from steersman.dynamics.pinn.projection import Projection
from steersman.envs.grid.tasks.structure_preserving import ANGLES, start
from steersman.envs.settings import Count, Positive, Settings, Whole, one_of
from steersman.optimizers.resumable import Descent, Resumable

SYNCHRONOUS = 1.5
"""Disturbances up to this keep synchronism for the 2 s, pu."""
SETTLED = 0.05
"""Seconds after which the loads' angles have fallen back."""
PART = 200
"""Iterations of L-BFGS between reports and checkpoints."""


@dataclass(frozen=True)
class SwingSettings(Settings):
    """Settings of :class:`SwingOperator`.

    Attributes:
        kind: Loss; see :func:`~steersman.dynamics.pinn.losses.make_loss`.
        form: ``separable``, or ``plain``, the published form of network.
        rank: Functions of time of the separable form.
        width: Units of the two hidden layers.
        adam: Steps of Adam, at a rate that falls from ``rate`` to a tenth of it along a cosine.
        rate: Initial rate of Adam.
        lbfgs: Iterations of L-BFGS after that, with strong-Wolfe line searches and a history of 100.
        polish: Further iterations on the loss of the kind, for the separable form, whose first two stages match the
            states alone, by :mod:`~steersman.dynamics.pinn.projection`; kind ``NN`` needs none. 0 leaves a stage out.
        seed: Seed of the initial weights.
    """

    kind: Kind = "PINN"
    form: Form = "separable"
    rank: Count = 32
    width: Count = 64
    adam: Whole = 300
    rate: Positive = 3e-3
    lbfgs: Whole = 600
    polish: Whole = 400
    seed: Whole = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("separable", "plain", form=self.form)


@dataclass(frozen=True)
class SwingScore:
    """Errors of the six angles on a grid, rad.

    Attributes:
        rms: Root mean square.
        largest: Largest.
        settled: Largest from 0.05 s on, when the loads' angles have fallen back.
        synchronous: Largest at disturbances up to 1.5 pu, which keep synchronism.
    """

    rms: float
    largest: float
    settled: float
    synchronous: float


class SwingOperator:
    """Solution operator of the post-fault swing: time and disturbance to ten states, without stepping.

    It is no :class:`~steersman.dynamics.base.Dynamics`: it has no action and cannot be stepped from a measured
    state, since it knows one family of trajectories only, those of the contingency it was fitted to.

    Attributes:
        network: The network, after :meth:`fit` or :meth:`load`.
        seconds: CPU seconds of the fit.
        progress: Called with a fraction in 0..1 and a short text.
        checkpoint: Folder from which a fit that was killed goes on, see :class:`~steersman.dynamics.base.Dynamics`.
    """

    progress: Callable[[float, str], None] = staticmethod(lambda fraction, text: None)
    checkpoint: Path | None = None

    def __init__(self, settings: SwingSettings | None = None) -> None:
        """Store the settings and draw the initial weights."""
        self.settings = settings or SwingSettings()
        self.seconds = 0.0
        self.network, self._training = self._fresh(), Resumable(None)

    @property
    def earlier_seconds(self) -> float:
        """CPU seconds that the last fit had taken in processes before this one."""
        return self._training.seconds

    def _fresh(self) -> SwingNetwork:
        s = self.settings
        gen = torch.Generator().manual_seed(s.seed)
        return Separable(s.rank, s.width, gen) if s.form == "separable" else Plain(s.width, gen)

    # ------------------------------------------------------------------ fit

    def fit(self, data: SwingGrid, points: Points | None = None) -> SwingOperator:
        """Forget everything, then train from ``settings.seed``: Adam, then L-BFGS.

        Args:
            data: States that the loss compares with.
            points: Times, disturbances and starts of collocation, for kind ``PINN``.

        Raises:
            ValueError: If points are missing, or training ends at a loss that is not finite.
        """
        began, s = time.process_time(), self.settings
        self.network = network = self._fresh()
        loss, weights = make_loss(network, data, s.kind, points), list(network.parameters())
        self._training = Resumable(self.checkpoint, type(self).__name__, repr(s), vars(data), points)
        if isinstance(network, Separable):
            projection = Projection(network, data)
            self._adam(projection.loss, projection.trained)
            self._lbfgs("lbfgs", projection.loss, projection.trained, s.lbfgs)
            projection.solve()
            self._lbfgs("polish", loss, weights, 0 if s.kind == "NN" else s.polish)
        else:
            self._adam(loss, weights)
            self._lbfgs("lbfgs", loss, weights, s.lbfgs)
        if not torch.isfinite(loss()):
            raise ValueError(f"training ended at a loss that is not finite; lower rate, which is {s.rate}")
        self.seconds = time.process_time() - began + self._training.seconds
        return self

    def _adam(self, loss: Callable[[], Tensor], weights: list[nn.Parameter]) -> None:
        s = self.settings
        if not s.adam:
            return
        optimizer = torch.optim.Adam(weights, s.rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, s.adam, s.rate / 10)

        def descend(step: int) -> bool:
            optimizer.zero_grad()
            value = loss()
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            if step % 50 == 0:
                self.progress(0.3 * step / s.adam, f"Adam {step}, loss {value.item():.2e}")
            return False

        self._training.run("adam", Descent(weights, optimizer, schedule), s.adam, descend)

    def _lbfgs(self, stage: str, loss: Callable[[], Tensor], weights: list[nn.Parameter], iterations: int) -> None:
        part = PART
        optimizer = torch.optim.LBFGS(
            weights, max_iter=part, max_eval=2 * part, history_size=100,
            line_search_fn="strong_wolfe", tolerance_grad=0.0, tolerance_change=0.0,
        )  # fmt: skip

        def closure() -> Tensor:
            optimizer.zero_grad()
            value = loss()
            value.backward()  # type: ignore[no-untyped-call]
            return value

        def descend(i: int) -> bool:
            done = i * part
            optimizer.param_groups[0]["max_iter"] = min(part, iterations - done)
            value = optimizer.step(closure).item()  # type: ignore[no-untyped-call]
            self.progress(0.3 + 0.7 * done / iterations, f"L-BFGS {done}, loss {value:.2e}")
            return False

        self._training.run(stage, Descent(weights, optimizer), -(-iterations // part), descend)

    # ------------------------------------------------------------------ use

    @torch.no_grad()
    def predict(self, t: Float[Tensor, "t"], dP: Float[Tensor, "n"]) -> Float[Tensor, "n t 10"]:
        """States on every pair of a disturbance and a time.

        Raises:
            ValueError: If a disturbance lies outside what the equations were asked for.
        """
        found: Tensor = self.network(t, dP, start(dP))
        return found

    def score(self, test: SwingGrid) -> SwingScore:
        """Errors of the angles against integrated trajectories."""
        error = (self.predict(test.t, test.dP) - test.x)[..., list(ANGLES)].abs()
        return SwingScore(
            rms=error.square().mean().sqrt().item(), largest=error.max().item(),
            settled=error[:, test.t >= SETTLED].max().item(), synchronous=error[test.dP <= SYNCHRONOUS].max().item(),
        )  # fmt: skip

    def residual(self, points: Points) -> float:
        """Root mean square of the equations' residual at the points, in the unit of the states per second."""
        return residual(self.network, points).square().mean().sqrt().item()

    # ------------------------------------------------------------------ files

    def save(self, path: Path | str) -> None:
        """Write weights and settings to a safetensors file."""
        tensors = {name: t.contiguous() for name, t in self.network.state_dict().items()}
        save_file(tensors, str(path), {"settings": json.dumps(asdict(self.settings)), "seconds": repr(self.seconds)})

    @classmethod
    def load(cls, path: Path | str) -> SwingOperator:
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: If the file holds something else.
        """
        with safe_open(str(path), "pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        if "settings" not in about:
            raise ValueError(f"{path} holds no settings of a swing operator; write it with SwingOperator.save")
        operator = cls(SwingSettings(**json.loads(about["settings"])))
        operator.network.load_state_dict(tensors)
        operator.seconds = float(about["seconds"])
        return operator
