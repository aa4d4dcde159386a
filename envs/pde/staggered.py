"""Incompressible flow on a staggered grid: exact projection around solid obstacles, semi-Lagrangian advection.

Velocities sit on the faces of cells, scalars at their centres (Harlow and Welch, Phys. Fluids 8 (1965) 2182); the
outer walls are closed. Fields are indexed ``[row of y, column of x]``, and only inner faces are stored: ``u`` is
``[n, rows, cols - 1]``, ``v`` is ``[n, rows - 1, cols]``.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import grid_sample, pad

from steersman.envs.placement import placed


class Faces(NamedTuple):
    """Velocities on the inner faces of a batch: ``u [n, rows, cols - 1]``, ``v [n, rows - 1, cols]``."""

    u: Tensor
    v: Tensor


class StaggeredGrid:
    """A closed box of square cells, some of them solid.

    Args:
        rows: Cells along y.
        cols: Cells along x.
        spacing: Side of a cell.
        solid: Which cells are solid, ``[rows, cols]``; none unless given.

    Raises:
        ValueError: If a side has fewer than 2 cells, the spacing is not positive, ``solid`` has another shape, or
            everything is solid.
    """

    def __init__(
        self, rows: int, cols: int, spacing: float = 1.0, solid: Bool[Tensor, "rows cols"] | None = None
    ) -> None:
        """Store the layout."""
        if min(rows, cols) < 2:
            raise ValueError(f"rows and cols must be at least 2, got {rows} and {cols}")
        if not (math.isfinite(spacing) and spacing > 0):
            raise ValueError(f"spacing must be a positive number, got {spacing}")
        self.rows, self.cols, self.spacing = rows, cols, spacing
        self.solid = torch.zeros(rows, cols, dtype=torch.bool) if solid is None else solid.cpu()
        if tuple(self.solid.shape) != (rows, cols):
            raise ValueError(f"solid must have shape {(rows, cols)}, got {tuple(self.solid.shape)}")
        if bool(self.solid.all()):
            raise ValueError("solid leaves no fluid: at least one cell must be open")
        self._copies: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}

    def divergence(self, flow: Faces) -> Float[Tensor, "n rows cols"]:
        """Outflow of each cell per unit of area."""
        along_x = torch.diff(pad(flow.u, (1, 1)), dim=2)
        along_y = torch.diff(pad(flow.v, (0, 0, 1, 1)), dim=1)
        return (along_x + along_y) / self.spacing

    def solve(self, source: Float[Tensor, "n rows cols"]) -> Float[Tensor, "n rows cols"]:
        """Mean-free solution of ``lap p = source - mean(source)`` with zero normal slope at the outer walls.

        Cosines are the eigenvectors of the five-point Laplacian; at these sizes dense products beat an FFT. Solids
        play no part here, :meth:`project` takes care of them.
        """
        down, across, inverse = (self._on(name, source) for name in ("down", "across", "inverse"))
        spectrum = (down @ source @ across.mT) * inverse
        p: Tensor = down.mT @ spectrum @ across
        return p

    def project(self, flow: Faces) -> Faces:
        """Nearest flow without divergence and without any motion at or in solids, exact to round-off.

        The projection of the empty box is ``P``. Forces ``f`` at the faces between fluid and solid (a capacitance
        matrix, Buzbee et al., SIAM J. Numer. Anal. 8 (1971) 722) make ``P (flow - f)`` vanish there: an orthogonal
        projection onto both conditions.
        """
        if not bool(self.solid.any()):
            return self._project_box(flow)
        open_u, open_v = self._on("open_u", flow.u), self._on("open_v", flow.u)
        box = self._project_box(Faces(flow.u * open_u, flow.v * open_v))
        edge = placed(self._edge, flow.u)
        leak = torch.cat([box.u.flatten(1), box.v.flatten(1)], dim=1)[:, edge]
        still = leak.new_zeros(len(leak), box.u[0].numel() + box.v[0].numel())
        force = still.index_copy(1, edge, leak @ self._on("capacitance", leak))
        pushed = self._project_box(self._split(force))
        return Faces((box.u - pushed.u) * open_u, (box.v - pushed.v) * open_v)

    def advect(self, flow: Faces, centred: Float[Tensor, "n c rows cols"], dt: float) -> tuple[Faces, Tensor]:
        """Flow and centred fields carried along for a time ``dt``: semi-Lagrangian, midpoint traces, bilinear.

        Stable at any step. Order 2 in the length of the trace, order 1 in the grid (bilinear sampling diffuses).
        """
        n = len(flow.u)

        def feet(shape: tuple[int, int], x0: float, y0: float) -> Tensor:
            y, x = torch.meshgrid(
                torch.arange(shape[0], dtype=flow.u.dtype, device=flow.u.device) + y0,
                torch.arange(shape[1], dtype=flow.u.dtype, device=flow.u.device) + x0,
                indexing="ij",
            )
            start = torch.stack([x, y], dim=2)[None].expand(n, -1, -1, -1)
            courant = dt / self.spacing
            middle = start - 0.5 * courant * self._velocity(flow, start)
            foot: Tensor = start - courant * self._velocity(flow, middle)
            return foot

        u = _sample(self._whole_u(flow)[:, None], feet((self.rows, self.cols - 1), 1.0, 0.5), 0.0, 0.5)[:, 0]
        v = _sample(self._whole_v(flow)[:, None], feet((self.rows - 1, self.cols), 0.5, 1.0), 0.5, 0.0)[:, 0]
        carried = _sample(centred, feet((self.rows, self.cols), 0.5, 0.5), 0.5, 0.5)
        return Faces(u, v), carried

    def centred(self, flow: Faces) -> Float[Tensor, "n 2 rows cols"]:
        """Velocities along x and y, averaged to the centres of cells."""
        u, v = self._whole_u(flow), self._whole_v(flow)
        return torch.stack([u[:, :, 1:] + u[:, :, :-1], v[:, 1:] + v[:, :-1]], dim=1) / 2

    def faces(self, velocity: Float[Tensor, "n 2 rows cols"]) -> Faces:
        """Velocities at centres, averaged to the faces between them."""
        u, v = velocity.unbind(dim=1)
        return Faces((u[:, :, 1:] + u[:, :, :-1]) / 2, (v[:, 1:] + v[:, :-1]) / 2)

    def _whole_u(self, flow: Faces) -> Tensor:
        return pad(flow.u, (1, 1))

    def _whole_v(self, flow: Faces) -> Tensor:
        return pad(flow.v, (0, 0, 1, 1))

    def _velocity(self, flow: Faces, at: Tensor) -> Tensor:
        u = _sample(self._whole_u(flow)[:, None], at, 0.0, 0.5)
        v = _sample(self._whole_v(flow)[:, None], at, 0.5, 0.0)
        return torch.cat([u, v], dim=1).movedim(1, -1)

    def _split(self, flat: Tensor) -> Faces:
        inner = self.rows * (self.cols - 1)
        u, v = flat[:, :inner], flat[:, inner:]
        return Faces(u.reshape(-1, self.rows, self.cols - 1), v.reshape(-1, self.rows - 1, self.cols))

    def _project_box(self, flow: Faces) -> Faces:
        p = self.solve(self.divergence(flow))
        return Faces(flow.u - torch.diff(p, dim=2) / self.spacing, flow.v - torch.diff(p, dim=1) / self.spacing)

    @cached_property
    def _tables(self) -> dict[str, Tensor]:
        down, below = _cosines(self.rows, self.spacing)
        across, beside = _cosines(self.cols, self.spacing)
        values = below[:, None] + beside[None]
        fluid = ~self.solid
        return {
            "down": down,
            "across": across,
            "inverse": torch.where(values == 0, 0.0, 1 / values.where(values != 0, 1.0)),
            "open_u": (fluid[:, 1:] & fluid[:, :-1]).double(),
            "open_v": (fluid[1:] & fluid[:-1]).double(),
        }

    @cached_property
    def _edge(self) -> Int64[Tensor, "f"]:
        """Faces between fluid and solid."""
        edges = (self.solid[:, 1:] ^ self.solid[:, :-1], self.solid[1:] ^ self.solid[:-1])
        return torch.cat([edge.flatten() for edge in edges]).nonzero()[:, 0]

    @cached_property
    def _capacitance(self) -> Float[Tensor, "f f"]:
        """Pseudo-inverse of ``P`` restricted to the faces between fluid and solid."""
        total = self.rows * (self.cols - 1) + (self.rows - 1) * self.cols
        parts = []
        for block in torch.split(self._edge, 128):
            unit = torch.zeros(len(block), total, dtype=torch.float64)
            unit[torch.arange(len(block)), block] = 1.0
            pushed = self._project_box(self._split(unit))
            parts.append(torch.cat([pushed.u.flatten(1), pushed.v.flatten(1)], dim=1)[:, self._edge])
        # A closed surface lets nothing through on balance: a zero eigenvalue per solid and per enclosed region.
        inverse: Tensor = torch.linalg.pinv(torch.cat(parts), hermitian=True, rtol=1e-9)
        return inverse

    def _on(self, name: str, like: Tensor) -> Tensor:
        key = (name, like.dtype, like.device)
        if key not in self._copies:
            table = self._capacitance if name == "capacitance" else self._tables[name]
            self._copies[key] = table.to(like)
        return self._copies[key]


def _cosines(cells: int, spacing: float) -> tuple[Tensor, Tensor]:
    """Orthonormal eigenvectors (rows) and eigenvalues of the second difference with zero slope at both ends."""
    mode = torch.arange(cells, dtype=torch.float64)
    vectors = torch.cos(math.pi * mode[:, None] * (mode[None] + 0.5) / cells) * math.sqrt(2 / cells)
    vectors[0] /= math.sqrt(2)
    return vectors, -((2 / spacing * torch.sin(math.pi * mode / (2 * cells))) ** 2)


def _sample(field: Tensor, at: Tensor, x0: float, y0: float) -> Tensor:
    """Bilinear values of ``field [n, c, h, w]``, whose first entry lies at ``(x0, y0)`` in units of cells."""
    high, wide = field.shape[-2:]
    x = 2 * (at[..., 0] - x0) / (wide - 1) - 1
    y = 2 * (at[..., 1] - y0) / (high - 1) - 1
    return grid_sample(field, torch.stack([x, y], dim=-1), padding_mode="border", align_corners=True)
