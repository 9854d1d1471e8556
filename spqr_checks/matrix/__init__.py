"""Which cells exist, which checks and axes they belong to, and what they need. Pure."""

from spqr_checks.matrix.axes import AFTER_TUNING, AXES, Axis, AxisRow, axis_of
from spqr_checks.matrix.cells import Cell
from spqr_checks.matrix.checks import CHECKS, LIMITS, Check, CheckRow, Reading, Unit
from spqr_checks.matrix.matrix import Draw, Matrix, Sizes
from spqr_checks.matrix.states import ALIGNED, BASE, DESTROYED, Origin, Role, State, Tuning

__all__ = [
    "AFTER_TUNING",
    "ALIGNED",
    "AXES",
    "BASE",
    "CHECKS",
    "DESTROYED",
    "LIMITS",
    "Axis",
    "AxisRow",
    "Cell",
    "Check",
    "CheckRow",
    "Draw",
    "Matrix",
    "Origin",
    "Reading",
    "Role",
    "Sizes",
    "State",
    "Tuning",
    "Unit",
    "axis_of",
]
