"""Row-wise L-BFGS: exact minima, rows of their own, and what is not finite."""

import torch
from torch import Tensor

from steersman.optimizers.lbfgs import RowLBFGS


def minimise(f, x: Tensor, evaluations: int) -> RowLBFGS:  # type: ignore[no-untyped-def]
    search = RowLBFGS(x)
    for _ in range(evaluations):
        asked = search.ask().detach().requires_grad_()
        cost = f(asked)
        (slope,) = torch.autograd.grad(cost.nan_to_num(0.0, 0.0, 0.0).sum(), asked)
        search.tell(cost.detach(), slope)
        if bool(search.done.all()):
            break
    return search


def rosenbrock(x: Tensor) -> Tensor:
    return (100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).sum(dim=1)


def test_quadratics_of_any_condition_reach_their_minimum() -> None:
    gen = torch.Generator().manual_seed(0)
    A = torch.linalg.qr(torch.randn(5, 8, 8, generator=gen, dtype=torch.float64)).Q
    A = A @ torch.diag(torch.logspace(0, 3, 8, dtype=torch.float64)) @ A.mT
    target = torch.randn(5, 8, generator=gen, dtype=torch.float64)
    found = minimise(lambda x: torch.einsum("ni,nij,nj->n", x - target, A, x - target), torch.zeros_like(target), 200)
    torch.testing.assert_close(found.x, target, atol=1e-6, rtol=0)


def test_a_curved_valley_is_followed_to_its_end() -> None:
    found = minimise(rosenbrock, torch.tensor([[-1.2, 1.0], [3.0, -2.0]], dtype=torch.float64), 200)
    torch.testing.assert_close(found.x, torch.ones_like(found.x), atol=1e-5, rtol=0)
    assert bool(found.done.all()) and torch.equal(found.cost, rosenbrock(found.x))


def test_rows_never_see_each_other() -> None:
    starts = torch.tensor([[-1.2, 1.0], [2.0, 2.0], [0.0, -1.0]], dtype=torch.float64)
    together = minimise(rosenbrock, starts, 25)
    for row in range(3):
        alone = minimise(rosenbrock, starts[row : row + 1], 25)
        assert torch.equal(alone.x[0], together.x[row])


def test_what_is_not_finite_is_stepped_back_from() -> None:
    """``-log(x) + x`` from 0.1: long steps leave the domain; a row that starts outside stays where it is."""
    found = minimise(
        lambda x: (x - x.log()).sum(dim=1), torch.tensor([[0.01], [30.0], [-1.0]], dtype=torch.float64), 80
    )
    torch.testing.assert_close(found.x[:2], torch.ones(2, 1, dtype=torch.float64), atol=1e-6, rtol=0)
    assert float(found.x[2]) == -1.0 and torch.isinf(found.cost[2]) and bool(found.done.all())


def test_costs_never_rise() -> None:
    search, before = RowLBFGS(torch.tensor([[-1.2, 1.0]], dtype=torch.float64)), torch.inf
    for _ in range(60):
        asked = search.ask().detach().requires_grad_()
        cost = rosenbrock(asked)
        search.tell(cost.detach(), *torch.autograd.grad(cost.sum(), asked))
        assert float(search.cost) <= before
        before = float(search.cost)
    assert before < 0.1
