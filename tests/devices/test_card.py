"""The pretended card itself: what it refuses, what it writes down, and that it computes what the CPU does."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from pretended_card import CARD, Card, DeviceError, OnCard
from torch import Tensor, nn

X, Y = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, -1.0, 2.0])


def test_what_is_made_there_stays_there_until_it_is_fetched() -> None:
    with Card() as card:
        x = torch.zeros(2, 3, device="cuda") + torch.tensor(1.0)
        like = [x.new_tensor([1.0]), torch.ones_like(x), x.new_zeros(2), torch.arange(3, device=x.device), x[:, 0]]
        for t in like:
            assert isinstance(t, OnCard) and t.device == CARD and t.is_cuda
        waits = len(card.waits)
        assert not isinstance(x.cpu(), OnCard) and float(x.sum()) == 6.0 and bool((x > 0).all())
        assert x.tolist() == [[1.0] * 3] * 2
    assert waits == 1 and len(card.waits) == 5  # new_tensor copies; cpu, float, bool and tolist read
    with pytest.raises(DeviceError, match="not there any more"):
        x + 1


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x + X,
        lambda x: torch.cat([x, X]),
        lambda x: torch.cat([x[0][None], torch.tensor(1.0)[None]]),
        lambda x: X[x.long() - 1],
        lambda x: torch.where(X > 1, x, 0.0),
        lambda x: torch.rand(3, generator=torch.Generator(), device=x.device),
        lambda x: torch.rand(3, generator=torch.Generator(x.device)),
        lambda x: nn.Linear(3, 1)(x),
    ],
)
def test_operands_on_two_devices_are_refused(mix: Callable[[Tensor], Tensor]) -> None:
    with Card(), pytest.raises(DeviceError):
        mix(X.to("cuda"))


def test_numpy_does_not_see_it() -> None:
    with Card(), pytest.raises(RuntimeError, match="numpy"):
        X.to("cuda").numpy()


@pytest.mark.parametrize(
    ("act", "waits"),
    [
        (lambda x: x * 2 + torch.tensor(1.0), 0),
        (lambda x: torch.full((3,), 2.0, device=x.device), 0),
        (lambda x: torch.where(x > 1, x, 0.0), 0),
        (lambda x: x.sort().values, 0),
        (lambda x: x.masked_fill(x > 1, 0.0), 0),
        (lambda x: torch.randn(3, generator=torch.Generator(x.device).manual_seed(0), device=x.device), 0),
        (lambda x: x[x > 1], 1),
        (lambda x: (x > 1).nonzero(), 1),
        (lambda x: x[[0, 1]], 1),
        (lambda x: x[torch.tensor([0, 1])], 1),
        (lambda x: torch.tensor([1.0, 2.0], device=x.device), 1),
        (lambda x: x.to("cpu"), 1),
        (lambda x: x.unique(), 1),
        (lambda x: torch.linalg.cholesky(torch.eye(2, device=x.device)), 1),
        (lambda x: torch.linalg.cholesky_ex(torch.eye(2, device=x.device))[0], 0),
    ],
)
def test_what_makes_the_host_wait_is_written_down(act: Callable[[Tensor], Tensor], waits: int) -> None:
    with Card() as card:
        x = X.to("cuda")
        card.waits.clear()
        act(x)
        assert len(card.waits) == waits, card.waits


def changed(x: Tensor, y: Tensor) -> Tensor:
    out = x.clone()
    out[[0, 2]] = y[:2]
    out[1:].mul_(3)
    out[np.array([0])] += 1
    return out


def sloped(x: Tensor, y: Tensor) -> Tensor:
    w = y.clone().requires_grad_()
    (x * w).square().sum().backward()
    assert w.grad is not None
    return w.grad


def several(x: Tensor, y: Tensor) -> Tensor:
    return torch.func.vmap(lambda a: torch.func.grad(lambda b: (b * y).sin().sum())(a))(x.repeat(2, 1))


def trained(x: Tensor, y: Tensor) -> Tensor:
    torch.manual_seed(0)
    net = nn.Linear(3, 1)
    net = copy.deepcopy(net.to(x.device))
    descent = torch.optim.Adam(net.parameters())
    net(x).sum().backward()
    descent.step()
    return net.weight.detach()


@pytest.mark.parametrize(
    "f",
    [
        changed, sloped, several, trained,
        lambda x, y: torch.fft.rfft(x).conj().imag * torch.polar(x, y).conj().real[:2],
        lambda x, y: torch.linalg.solve(torch.diag(x) + 0.1, y),
        lambda x, y: x.new_zeros(4).index_put((torch.tensor([1, 1, 2], device=x.device),), y, accumulate=True),
    ],
)  # fmt: skip
def test_it_computes_what_the_cpu_does(f: Callable[[Tensor, Tensor], Tensor]) -> None:
    with Card():
        there = f(X.to("cuda"), Y.to("cuda"))
        assert isinstance(there, OnCard)
        found = there.cpu()
    torch.testing.assert_close(found, f(X, Y), rtol=0, atol=0)
