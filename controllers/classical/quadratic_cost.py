"""Objectives as matrices, for controllers that want them quadratic."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steersman.envs.objective import Linear, Quadratic, Term
from steersman.envs.plant import ControlProblem


@dataclass(frozen=True)
class OutputCost:
    """``z'Qz - 2 r'Ez + 2 q'z``, all matrices diagonal.

    Attributes:
        Q: Weights of z, those of e included.
        E: Weights of e alone, one for each reference; where all are zero, z need not be what references are for.
        q: Linear cost of z.
    """

    Q: Float[Tensor, "nz"]
    E: Float[Tensor, "nr"]
    q: Float[Tensor, "nz"]


@dataclass(frozen=True)
class QuadraticCost:
    """Stage cost ``outputs + u'Ru + 2 g'u + (u - u_prev)'S(u - u_prev)``, all matrices diagonal.

    Attributes:
        outputs: Cost of outputs at each step.
        end: Cost of the outputs with which an episode ends, in place of ``outputs``.
        R: Weights of u.
        g: Linear cost of u.
        S: Weights of the change of u.
    """

    outputs: OutputCost
    end: OutputCost
    R: Float[Tensor, "m"]
    g: Float[Tensor, "m"]
    S: Float[Tensor, "m"]


def quadratic_cost(problem: ControlProblem, *, terminal: bool) -> QuadraticCost:
    """Read the cost of a problem; the price of failures is left out.

    Args:
        problem: The problem.
        terminal: Whether the terminal terms are read; else the end costs nothing.

    Raises:
        ValueError: If a term is neither quadratic nor linear, or no term prices the actions.
    """
    m, objective = problem.actions.m, problem.objective
    R, g, S = torch.zeros(3, m, dtype=torch.float64)
    for term in _readable(objective.stage):
        w = torch.tensor(term.weights, dtype=torch.float64)
        match term.on, isinstance(term, Quadratic):
            case "u", True:
                R = R + w
            case "du", True:
                S = S + w
            case "u", False:
                g = g + w / 2
            case "du", False:
                raise ValueError(f"term {term.name!r}: a linear cost of changes adds up to nothing; drop it")
    if not bool((R + S > 0).all()):
        raise ValueError("LQR needs a quadratic cost of every action; add Quadratic(on='u') to the objective")
    end = _output_cost(objective.terminal if terminal else (), problem.nz)
    return QuadraticCost(_output_cost(objective.stage, problem.nz), end, R, g, S)


def _output_cost(terms: tuple[Term, ...], nz: int) -> OutputCost:
    Q, E, q = torch.zeros(3, nz, dtype=torch.float64)
    for term in _readable(terms):
        w = torch.tensor(term.weights, dtype=torch.float64)
        match term.on, isinstance(term, Quadratic):
            case "e", True:
                Q, E = Q + w, E + w
            case "z", True:
                Q = Q + w
            case (("e" | "z"), False):
                q = q + w / 2
    return OutputCost(Q, E, q)


def _readable(terms: tuple[Term, ...]) -> list[Quadratic | Linear]:
    found: list[Quadratic | Linear] = []
    for term in terms:
        if not isinstance(term, Quadratic | Linear):
            raise ValueError(
                f"LQR reads quadratic and linear terms, but {term.name!r} is {type(term).__name__}; "
                "give lqr an effort of its own, or use sampling or mixed-integer MPC for this objective"
            )
        found.append(term)
    return found


def regulation(problem: ControlProblem, outputs: int, effort: float) -> QuadraticCost:
    """Cost ``|y|^2 + effort |u|^2`` of bringing outputs to zero, in place of the problem's own.

    It goes on at the end of an episode, whose last outputs cost as much as any.
    """
    zero_y, zero_u = torch.zeros(outputs, dtype=torch.float64), torch.zeros(problem.actions.m, dtype=torch.float64)
    square = OutputCost(zero_y + 1, torch.zeros(problem.nz, dtype=torch.float64), zero_y)
    return QuadraticCost(square, square, zero_u + effort, zero_u, zero_u)
