"""Units of a simulation from machine data: each generator of a case with its machine and regulators.

What the models of :mod:`~steersman.envs.grid.machines.models` and :mod:`~steersman.envs.grid.machines.regulators`
cannot do exactly is refused rather than approximated.
"""

from __future__ import annotations

from collections.abc import Sequence

from steersman.envs.grid.files.psse_dyr import Exdc2, Gencls, Genrou, Ieeest, MachineData, Stab1, Tgov1, simulated
from steersman.envs.grid.machines.base import Machine
from steersman.envs.grid.machines.group import Unit
from steersman.envs.grid.machines.models import Classical, SubTransient
from steersman.envs.grid.machines.regulators import DCExciter, Stabiliser, SteamGovernor
from steersman.envs.grid.network.case import Case


def units(case: Case, records: Sequence[MachineData]) -> list[Unit]:
    """The units of a case, in the order of its generators.

    Args:
        case: The grid; machines are found by the number of their bus and their name there.
        records: Machine data, from :func:`~steersman.envs.grid.files.psse_dyr.read_dyr`.

    Raises:
        ValueError: If a record is of no generator in service, a generator has no machine or two parts of one kind, or a
            record asks for what is not modelled. The message names the bus, and the line of the record.
    """
    generators = case.generators
    numbers = case.buses.id[generators.bus].tolist()
    place = {pair: g for g, pair in enumerate(zip(numbers, generators.machine, strict=True))}
    parts: list[dict[str, MachineData]] = [{} for _ in place]
    for record in records:
        g = place.get((record.bus, record.machine))
        if g is None:
            raise ValueError(f"{record.where}: {record.model} of machine {record.machine} at bus {record.bus}, which "
                             "is no generator in service; remove the record")  # fmt: skip
        kind = _kind(record)
        if kind in parts[g]:
            raise ValueError(f"{record.where}: machine {record.machine} at bus {record.bus} has a {kind} already")
        parts[g][kind] = record
    return [_unit(case, g, part) for g, part in enumerate(parts)]


def _kind(record: MachineData) -> str:
    if record.part:
        return record.part
    raise ValueError(
        f"{record.where}: {record.model} at bus {record.bus} is read but not simulated; remove the record, or take one "
        f"of these: {simulated()}"
    )


def _unit(case: Case, g: int, part: dict[str, MachineData]) -> Unit:
    if "machine" not in part:
        raise ValueError(
            f"machine {case.generators.machine[g]} at bus {case.buses.id[case.generators.bus[g]]} has no machine data; "
            "add a GENCLS or GENROU record"
        )
    exciter, governor, stabiliser = (part.get(kind) for kind in ("exciter", "governor", "stabiliser"))
    return Unit(
        g,
        _machine(part["machine"], complex(case.generators.z_source[g])),
        _exciter(exciter) if isinstance(exciter, Exdc2) else None,
        _governor(governor) if isinstance(governor, Tgov1) else None,
        None if stabiliser is None else _stabiliser(stabiliser),
    )


def _machine(record: MachineData, source: complex) -> Machine:
    if isinstance(record, Gencls):
        _need(record, source.imag > 0, "a source reactance as its X'd: ZX of the generator in a PSS/E raw file, in no "
              "MATPOWER file; use a raw file, or a GENROU record, which holds its own")  # fmt: skip
        return Classical(h=record.h, x1d=source.imag, ra=source.real, d=record.d)
    assert isinstance(record, Genrou)  # noqa: S101 - the only other machine
    r = record
    return SubTransient(
        h=r.h, xd=r.xd, xq=r.xq, x1d=r.xpd, x1q=r.xpq, x2=r.xppd, xl=r.xl, t1d0=r.tpdo, t1q0=r.tpqo, t2d0=r.tppdo,
        t2q0=r.tppqo, ra=source.real, d=r.d, s10=r.s10, s12=r.s12,
    )  # fmt: skip


def _exciter(r: Exdc2) -> DCExciter:
    _need(r, r.tb == r.tc, "equal TB and TC: its lead-lag is not modelled")
    _need(r, r.tr > 0 and r.ta > 0, "time constants TR and TA above zero")
    _need(r, r.ke != 0 and r.vrmax > 0, "KE and VRMAX as numbers, not as zeros to be computed")
    return DCExciter(
        tr=r.tr, ka=r.ka, ta=r.ta, ke=r.ke, te=r.te, kf=r.kf, tf=r.tf1, vmin=r.vrmin, vmax=r.vrmax,
        e1=r.e1, se1=r.se1, e2=r.e2, se2=r.se2,
    )  # fmt: skip


def _governor(r: Tgov1) -> SteamGovernor:
    return SteamGovernor(r=r.r, t1=r.t1, t2=r.t2, t3=r.t3, vmin=r.vmin, vmax=r.vmax, dt=r.dt)


def _stabiliser(record: MachineData) -> Stabiliser:
    if isinstance(record, Stab1):
        r = record
        return Stabiliser(k=r.k_t, tw=r.t, t1=r.t1_t3 * r.t3, t2=r.t3, t3=r.t2_t4 * r.t4, t4=r.t4, vmax=r.hlim)
    assert isinstance(record, Ieeest)  # noqa: S101 - the only other stabiliser
    s = record
    _need(s, s.ics == 1 and s.ib in (0, s.bus), "the machine's own speed as its input (ICS 1)")
    _need(s, not any((s.a1, s.a2, s.a3, s.a4, s.a5, s.a6)), "no filter (A1 to A6 zero)")
    _need(s, s.t2 > 0 and s.t4 > 0, "time constants T2 and T4 above zero")
    _need(s, s.lsmin == -s.lsmax and not (s.vcu or s.vcl), "equal limits of both signs and none on the voltage")
    return Stabiliser(k=s.ks * s.t5 / s.t6, tw=s.t6, t1=s.t1, t2=s.t2, t3=s.t3, t4=s.t4, vmax=s.lsmax)


def _need(record: MachineData, holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"{record.where}: {record.model} at bus {record.bus} needs {what}")
