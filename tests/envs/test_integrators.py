"""Orders, invariants and derivatives of the integrators, against exact solutions."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from steersman.envs.integrators import ETDRK4, leapfrog, rk4

F64, C128 = torch.float64, torch.complex128


def order(error: Callable[[int], float], steps: int) -> float:
    return math.log2(error(steps) / error(2 * steps))


def rotor(x: dict[str, Tensor]) -> dict[str, Tensor]:
    return {"angle": x["speed"], "speed": -torch.sin(x["angle"])}


def test_rk4_has_order_four_on_dicts_and_equals_the_tensor_form() -> None:
    start = {"angle": torch.tensor([1.0, 2.5], dtype=F64), "speed": torch.tensor([0.3, 0.0], dtype=F64)}

    def end(steps: int) -> dict[str, Tensor]:
        x = start
        for _ in range(steps):
            x = rk4(rotor, x, 2.0 / steps)
        return x

    exact = end(320)
    assert order(lambda steps: float((end(steps)["angle"] - exact["angle"]).abs().max()), 20) == pytest.approx(
        4, abs=0.2
    )
    packed = torch.stack([start["angle"], start["speed"]], dim=1)
    flat = rk4(lambda x: torch.stack([x[:, 1], -torch.sin(x[:, 0])], dim=1), packed, 0.1)
    assert torch.equal(flat[:, 0], rk4(rotor, start, 0.1)["angle"])


def test_etdrk4_has_order_four_on_logistic_growth_slow_neutral_and_stiff() -> None:
    c = torch.tensor([1.0, 0.0, 1e-7, -0.5, -30.0], dtype=F64)
    v0 = torch.tensor([[0.3, 0.4, 0.4, 0.5, 0.5]], dtype=F64)
    growth = torch.expm1(c) / torch.where(c == 0, 1.0, c) + (c == 0)
    exact = v0 * torch.exp(c) / (1 + v0 * growth)

    def error(steps: int) -> Tensor:
        return (ETDRK4(c, 1 / steps).run(v0, lambda v: -v * v, steps) - exact).abs()[0]

    orders = torch.log2(error(8) / error(16))[:4]
    assert orders.tolist() == pytest.approx([4.0] * 4, abs=0.25)
    assert error(32)[4] < 1e-9 * float(v0[0, 4])


def test_etdrk4_without_stiffness_is_rk4() -> None:
    v = torch.tensor([[0.2, -0.7]], dtype=F64)
    assert torch.allclose(
        ETDRK4(torch.zeros(2, dtype=F64), 0.1).run(v, torch.sin), rk4(torch.sin, v, 0.1), rtol=0, atol=1e-15
    )


def test_etdrk4_with_complex_linear_part_follows_a_soliton() -> None:
    """Korteweg-de Vries: an imaginary linear part, where coefficients cut down to their real part lose all accuracy."""
    length, n, speed, time = 40.0, 128, 2.0, 1.0
    x = length / n * torch.arange(n, dtype=F64)
    q = 2 * math.pi / length * torch.arange(n // 2 + 1, dtype=F64)
    q[-1] = 0.0  # the highest mode has no odd derivative on the grid

    def soliton(t: float) -> Tensor:
        return 0.5 * speed / torch.cosh(math.sqrt(speed) / 2 * (x - length / 2 - speed * t)) ** 2

    def error(steps: int) -> float:
        scheme = ETDRK4(1j * q**3, time / steps)
        v = scheme.run(
            torch.fft.rfft(soliton(0.0)), lambda v: -3j * q * torch.fft.rfft(torch.fft.irfft(v, n=n) ** 2), steps
        )
        return float((torch.fft.irfft(v, n=n) - soliton(time)).abs().max())

    assert order(error, 100) == pytest.approx(4, abs=0.3)
    assert error(400) < 1e-7


def test_etdrk4_solves_linear_problems_exactly() -> None:
    c = torch.tensor([-300.0 + 4j, 2j, 0.5 + 0j], dtype=C128)
    v = torch.tensor([[1.0 + 1j, 2.0, -1j]], dtype=C128)
    assert torch.allclose(ETDRK4(c, 0.1).run(v, torch.zeros_like, 10), v * torch.exp(c), rtol=1e-13, atol=1e-15)
    assert torch.allclose(ETDRK4(c, 0.1).to("cpu").run(v, torch.zeros_like, 10), v * torch.exp(c), rtol=1e-13)


def test_leapfrog_has_order_two_is_reversible_and_keeps_the_energy() -> None:
    q0, p0 = torch.tensor([[1.0], [2.0]], dtype=F64), torch.tensor([[0.5], [0.0]], dtype=F64)

    def force(q: Tensor) -> Tensor:
        return -torch.sin(q)

    def path(steps: int, h: float) -> tuple[Tensor, Tensor]:
        q, p, states = q0, p0, []
        for _ in range(steps):
            q, p = leapfrog(lambda p: p, force, q, p, h)
            states.append(torch.cat([q, p], dim=1))
        return torch.stack(states), p

    exact = path(2048, 1 / 1024)[0][-1]
    assert order(lambda steps: float((path(steps, 2 / steps)[0][-1] - exact).abs().max()), 16) == pytest.approx(
        2, abs=0.1
    )
    end, p = path(50, 0.1)
    q, p = end[-1, :, :1], -p
    for _ in range(50):
        q, p = leapfrog(lambda p: p, force, q, p, 0.1)
    assert (q - q0).abs().max() < 1e-13 and (p + p0).abs().max() < 1e-13

    states, _ = path(4000, 0.2)
    drift = (states[..., 1] ** 2 / 2 - torch.cos(states[..., 0])) - (p0**2 / 2 - torch.cos(q0))[:, 0]
    early, late = drift[:1000].abs().amax(dim=0), drift[3000:].abs().amax(dim=0)
    assert (early < 0.02).all() and (late < 1.02 * early).all()
    assert drift[3000:].mean().abs() < 1.5 * drift[:1000].mean().abs()


def test_gradients() -> None:
    q = torch.tensor([[0.4, -1.2]], dtype=F64, requires_grad=True)
    p = torch.tensor([[0.1, 0.8]], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: rk4(torch.sin, x, 0.3), (q,))
    assert torch.autograd.gradcheck(lambda q, p: leapfrog(torch.tanh, torch.cos, q, p, 0.3), (q, p))
    scheme = ETDRK4(torch.tensor([-2.0 + 1j, 0.5 - 3j], dtype=C128), 0.3)
    assert torch.autograd.gradcheck(lambda q, p: scheme.run(torch.complex(q, p), torch.sin, 2), (q, p))


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="h must be a positive number, got -1"):
        ETDRK4(torch.zeros(2, dtype=F64), -1.0)
