"""What the settings of all networks on windows share."""

from __future__ import annotations

from dataclasses import dataclass

from steersman.envs.settings import Count, Positive, Settings, Share, Whole


@dataclass(frozen=True, kw_only=True)
class WindowSettings(Settings):
    """Window, size and training of a network.

    Attributes:
        context: Measurements in the window; 1 makes the measured output the whole state.
        hidden: Widths of the hidden layers.
        rollout: Control steps of the rollout loss.
        batch: Windows per gradient step, of each network.
        rate: Initial learning rate of Adam.
        patience: Validations (every 100 steps) without improvement after which training stops.
        validation: Fraction of the episodes held back for early stopping; of a single one, of its windows.
        seed: Seed of weights and mini-batches.
    """

    context: Count = 1
    hidden: tuple[Count, ...] = (32, 32)
    rollout: Count = 5
    batch: Count = 128
    rate: Positive = 2e-3
    patience: Count = 5
    validation: Share = 0.15
    seed: Whole = 0
