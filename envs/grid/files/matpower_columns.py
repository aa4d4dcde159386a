"""Columns of MATPOWER's tables and the constants that name them (MATPOWER User's Manual, appendix B).

Each command lists its constants in the order of its outputs in MATPOWER, so that ``[A, B, ...] = idx_bus`` gives what
it gives there. Columns count from 1, as in files.
"""

from __future__ import annotations

BUS = {
    "PQ": 1, "PV": 2, "REF": 3, "NONE": 4, "BUS_I": 1, "BUS_TYPE": 2, "PD": 3, "QD": 4, "GS": 5, "BS": 6, "BUS_AREA": 7,
    "VM": 8, "VA": 9, "BASE_KV": 10, "ZONE": 11, "VMAX": 12, "VMIN": 13, "LAM_P": 14, "LAM_Q": 15, "MU_VMAX": 16,
    "MU_VMIN": 17,
}  # fmt: skip
GEN = {
    "GEN_BUS": 1, "PG": 2, "QG": 3, "QMAX": 4, "QMIN": 5, "VG": 6, "MBASE": 7, "GEN_STATUS": 8, "PMAX": 9, "PMIN": 10,
    "MU_PMAX": 22, "MU_PMIN": 23, "MU_QMAX": 24, "MU_QMIN": 25, "PC1": 11, "PC2": 12, "QC1MIN": 13, "QC1MAX": 14,
    "QC2MIN": 15, "QC2MAX": 16, "RAMP_AGC": 17, "RAMP_10": 18, "RAMP_30": 19, "RAMP_Q": 20, "APF": 21,
}  # fmt: skip
BRANCH = {
    "F_BUS": 1, "T_BUS": 2, "BR_R": 3, "BR_X": 4, "BR_B": 5, "RATE_A": 6, "RATE_B": 7, "RATE_C": 8, "TAP": 9,
    "SHIFT": 10, "BR_STATUS": 11, "PF": 14, "QF": 15, "PT": 16, "QT": 17, "MU_SF": 18, "MU_ST": 19, "ANGMIN": 12,
    "ANGMAX": 13, "MU_ANGMIN": 20, "MU_ANGMAX": 21,
}  # fmt: skip
COST = {"PW_LINEAR": 1, "POLYNOMIAL": 2, "MODEL": 1, "STARTUP": 2, "SHUTDOWN": 3, "NCOST": 4, "COST": 5}

COLUMNS = {"bus": BUS, "gen": GEN, "branch": BRANCH}
COUNTS = {"bus": (13,), "gen": (10, 21), "branch": (11, 13)}
"""Numbers of columns of data that a table may have; those of old files, then those of today's."""
SOLVED = {"bus": (17,), "gen": (25,), "branch": (17, 21)}
"""Numbers of columns with the results of a power flow or an optimum, which are not data."""

COMMANDS = {
    "idx_bus": {name: float(value) for name, value in BUS.items()},
    "idx_gen": {name: float(value) for name, value in GEN.items()},
    "idx_brch": {name: float(value) for name, value in BRANCH.items()},
    "idx_cost": {name: float(value) for name, value in COST.items()},
}
COMMANDS["define_constants"] = {name: value for names in COMMANDS.values() for name, value in names.items()}
DCLINE_STATUS = 3
"""Column of the status of a direct current line."""
