"""An epidemic on a contact network, controlled by distancing and vaccination."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from steersman.envs.actions import ActionSet
from steersman.envs.noise import fold, integers, uniform
from steersman.envs.objective import Linear, Objective, Quadratic
from steersman.envs.picture import pixels
from steersman.envs.plant import Plant, Trail
from steersman.envs.tree import Params, State

SUSCEPTIBLE, EXPOSED, INFECTIOUS, RECOVERED = range(4)
_RATES, _EDGES, _SEEDS = 1, 2, 3
CAPACITY = 0.1
"""Share of the population that may be infectious at once: beds."""


class SEIRNetwork(Plant):
    """Susceptible, exposed, infectious and recovered nodes of a random network; keep the wave below capacity.

    Every scenario draws a network of ``nodes * degree / 2`` edges between random nodes (Erdos and Renyi's G(n, M),
    repeated edges allowed) and its rates: transmission 0.35..0.65 per day over all contacts of a node, incubation
    3..6 days, infectious period 5..9 days. In each time step, a susceptible node with i infectious neighbours is
    exposed with probability ``1 - exp(-beta (1 - distancing) i dt / degree)`` and otherwise vaccinated (it counts as
    recovered) with probability ``vaccination dt``; exposed nodes become infectious and infectious ones recover at
    their rates. As degree and size grow the shares follow :func:`mean_field`.

    State: ``node`` uint8 ``[n, nodes]``. Actions: distancing in [0, 0.8] and vaccinations per susceptible and day in
    [0, 0.02]. Measured: shares of susceptible, infectious and recovered (exposed nodes are not seen). Performance:
    shares of infectious and susceptible. Constraint: infectious share at most :data:`CAPACITY`.
    """

    def __init__(
        self, nodes: int = 1000, degree: int = 10, seeds: int = 10, *, hold: int = 7, horizon: int = 30
    ) -> None:
        """Set the task up; a control step is ``hold`` days, a day has two time steps.

        Args:
            nodes: People.
            degree: Mean number of contacts.
            seeds: People exposed at the start.
            hold: Days per control step.
            horizon: Control steps in an episode.

        Raises:
            ValueError: If a number is below 1, or there are more seeds than nodes.
        """
        for name, value in (
            ("nodes", nodes),
            ("degree", degree),
            ("seeds", seeds),
            ("hold", hold),
            ("horizon", horizon),
        ):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if seeds > nodes:
            raise ValueError(f"seeds must be at most nodes = {nodes}, got {seeds}")
        self.nodes, self.degree, self.seeds = nodes, degree, seeds
        self.dt, self.hold, self.horizon, self.gradient, self.time_unit = 0.5, 2 * hold, horizon, "none", "day"
        self.actions = ActionSet((0.0, 0.0), (0.8, 0.02), names=("distancing", "vaccination"), units=("", "1/day"))
        self.objective = Objective((
            Quadratic(name="infectious", on="z", weights=(200.0, 0.0)),
            Quadratic(name="distancing", on="u", weights=(0.5, 0.0)),
            Linear(name="vaccination", on="u", weights=(0.0, 5.0)),
        ))  # fmt: skip
        self.measured = ("susceptible", "infectious", "recovered")
        self.performed = ("infectious", "susceptible")
        self.constrained = ("beds",)

    def params(self, key: Int64[Tensor, "n"]) -> Params:
        """Rates ``beta``, ``sigma``, ``gamma`` per day ``[n]`` and ``edges`` ``[n, E, 2]``."""
        unit = uniform(fold(key, _RATES), 3)
        edges = integers(fold(key, _EDGES), 0, self.nodes, self.nodes * self.degree // 2, 2)
        return {
            "beta": 0.35 + 0.3 * unit[:, 0], "sigma": 1 / (3 + 3 * unit[:, 1]), "gamma": 1 / (5 + 4 * unit[:, 2]),
            "edges": edges,
        }  # fmt: skip

    def initial(self, key: Int64[Tensor, "n"], p: Params) -> State:
        """Everyone is susceptible but ``seeds`` random people, who are exposed."""
        rank = uniform(fold(key, _SEEDS), self.nodes).argsort(dim=1)
        node = torch.full(rank.shape, SUSCEPTIBLE, dtype=torch.uint8, device=key.device)
        return {"node": node.scatter(1, rank[:, : self.seeds], EXPOSED)}

    def step(self, k: Int64[Tensor, "n"], x: State, u: Float[Tensor, "n 2"], w: Tensor, p: Params) -> State:
        """State one control step later; ``w`` holds the noise key of each row."""
        node = _node(x)
        distancing, vaccination = u.detach().to(self.dtype).nan_to_num(0.0)[:, :, None].unbind(dim=1)
        force = p["beta"][:, None] * (1 - distancing) * self.dt / self.degree
        leave = [1 - torch.exp(-p[name][:, None] * self.dt) for name in ("sigma", "gamma")]
        from_, to = p["edges"].unbind(dim=2)
        for tick in range(self.hold):
            infectious = (node == INFECTIOUS).to(self.dtype)
            pressure = torch.zeros_like(infectious)
            pressure = pressure.scatter_add(1, from_, infectious.gather(1, to))
            pressure = pressure.scatter_add(1, to, infectious.gather(1, from_))
            draw = uniform(fold(w, tick), self.nodes)
            caught = 1 - torch.exp(-force * pressure)
            jab = caught + (1 - caught) * vaccination * self.dt
            after = torch.where((node == SUSCEPTIBLE) & (draw < jab), RECOVERED, node)
            after = torch.where((node == SUSCEPTIBLE) & (draw < caught), EXPOSED, after)
            after = torch.where((node == EXPOSED) & (draw < leave[0]), INFECTIOUS, after)
            node = torch.where((node == INFECTIOUS) & (draw < leave[1]), RECOVERED, after).to(torch.uint8)
        return {"node": node}

    def shares(self, x: State) -> Float[Tensor, "n 4"]:
        """Shares of the four compartments."""
        node = _node(x)
        return torch.stack([(node == c).to(self.dtype).mean(dim=1) for c in range(4)], dim=1)

    def _of(self, x: State, *compartments: int) -> Float[Tensor, "n c"]:
        node = _node(x)
        return torch.stack([(node == c).to(self.dtype).mean(dim=1) for c in compartments], dim=1)

    def measure(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n 3"]:
        """Shares of susceptible, infectious and recovered."""
        return self._of(x, SUSCEPTIBLE, INFECTIOUS, RECOVERED)

    def perform(self, k: Int64[Tensor, "n"], x: State, p: Params) -> Float[Tensor, "n 2"]:
        """Shares of infectious and susceptible."""
        return self._of(x, INFECTIOUS, SUSCEPTIBLE)

    def constraints(self, k: Int64[Tensor, "n"], x: State, u: Float[Tensor, "n m"], p: Params) -> Float[Tensor, "n 1"]:
        """Infectious share above the beds."""
        return self._of(x, INFECTIOUS) - CAPACITY

    def render(self, trail: Trail) -> NDArray[np.uint8]:
        """Compartments over time above the actions."""
        figure = Figure(figsize=(8.4, 5.2), dpi=100, layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
        time = np.asarray(trail.k) * self.period
        shares = np.stack([self.shares(x)[0].cpu().numpy() for x in trail.x])
        names, tints = (
            ("susceptible", "exposed", "infectious", "recovered"),
            ("tab:blue", "tab:orange", "tab:red", "0.6"),
        )
        upper.stackplot(time, shares.T[[2, 1, 0, 3]], labels=[names[i] for i in (2, 1, 0, 3)],
                        colors=[tints[i] for i in (2, 1, 0, 3)], alpha=0.85)  # fmt: skip
        upper.axhline(CAPACITY, color="k", lw=1, ls="--")
        upper.set(ylim=(0, 1), xlim=(0, self.horizon * self.period), ylabel="share of people")
        upper.legend(loc="upper right", fontsize=8)
        actions: NDArray[Any] = np.asarray(trail.u).reshape(-1, 2)
        for i, name in enumerate(self.actions.names):
            lower.step(time[: len(actions)], actions[:, i] / self.actions.upper[i], where="post", label=name)
        lower.set(ylim=(-0.05, 1.05), xlabel="day", ylabel="share of the bound")
        lower.legend(loc="upper right", fontsize=8)
        return pixels(figure)


def mean_field(
    start: Float[Tensor, "n 4"], u: Float[Tensor, "n h 2"], p: Params, period: float, substeps: int = 200
) -> Float[Tensor, "n h 4"]:
    """Shares after each control step in the limit of many nodes and contacts: the SEIR equations by Euler steps.

    ``s' = -beta (1 - u_1) s i - u_2 s``, ``e' = beta (1 - u_1) s i - sigma e``, ``i' = sigma e - gamma i``,
    ``r' = gamma i + u_2 s``.

    Args:
        start: Shares of susceptible, exposed, infectious and recovered.
        u: Distancing and vaccination of each control step.
        p: Rates as :meth:`SEIRNetwork.params` gives them.
        period: Days of a control step.
        substeps: Euler steps of a control step.
    """
    dt = period / substeps
    s, e, i, r = start.unbind(1)
    found = []
    for j in range(u.shape[1]):
        for _ in range(substeps):
            caught, jab = p["beta"] * (1 - u[:, j, 0]) * s * i, u[:, j, 1] * s
            ill, well = p["sigma"] * e, p["gamma"] * i
            s, e, i, r = s - dt * (caught + jab), e + dt * (caught - ill), i + dt * (ill - well), r + dt * (well + jab)
        found.append(torch.stack([s, e, i, r], dim=1))
    return torch.stack(found, dim=1)


def _node(x: State) -> Tensor:
    if isinstance(x, Tensor):
        raise ValueError("the state of SEIRNetwork is a dict with the tensor 'node', got one tensor")
    return x["node"]


def reproduction_number(p: Params) -> Float[Tensor, "n"]:
    """Infections by one infectious person among susceptible ones, in the mean field: ``beta / gamma``."""
    number: Tensor = p["beta"] / p["gamma"]
    return number


def final_size(r0: float) -> float:
    """Share that an epidemic without control reaches, by Kermack and McKendrick (1927): ``z = 1 - exp(-r0 z)``."""
    z = 1.0
    for _ in range(200):
        z = 1 - math.exp(-r0 * z)
    return z
