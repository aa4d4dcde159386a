"""Numbers as text, for reports and pages."""

from __future__ import annotations

import math

from steersman.experiments.statistics.evidence import Interval

DASH = "\N{EN DASH}"


def number(value: float) -> str:
    """Four significant digits, no exponent where it can be avoided; a dash for what is not finite."""
    if not math.isfinite(value):
        return DASH
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.3g}"
    digits = max(0, 3 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:,.{min(digits, 4)}f}"


def numbers(interval: Interval | None) -> str:
    """Both ends of an interval."""
    return DASH if interval is None else f"{number(interval.low)} .. {number(interval.high)}"


def percent(share: float, digits: int | None = None) -> str:
    """A share in percent; a dash where shares mean nothing. What is less than the whole is never rounded to 100.

    Args:
        share: The share.
        digits: Behind the point; by default none from 10 on, and one below. Just below 100 as many more as it takes.
    """
    if not math.isfinite(share):
        return DASH
    least = (0 if abs(share) >= 0.0995 else 1) if digits is None else digits
    told = (f"{100 * share + 0.0:.{d}f}" for d in range(least, 10))
    return next((text for text in told if share >= 1 or float(text) < 100), "99.999999999")


def percents(interval: Interval) -> str:
    """Both ends of an interval of shares in percent."""
    return f"{percent(interval.low)} to {percent(interval.high)}"


def seconds(value: float) -> str:
    """A duration in the unit that suits it."""
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value:.1g} s"


def counted(count: int, what: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"
