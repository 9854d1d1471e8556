"""Which cells exist, which checks and axes they belong to, and what they need. Pure."""

from spqr_checks.matrix.checks import (
    ADAPTED,
    AFTER_TUNING,
    AXES,
    CHECKS,
    LIMITS,
    Axis,
    AxisRow,
    Check,
    CheckRow,
    Reading,
    Unit,
    axis_of,
)
from spqr_checks.matrix.matrix import Cell, Draw, Matrix, Sizes
from spqr_checks.matrix.states import (
    ALIGNED,
    BASE,
    DESTROYED,
    Adaptation,
    Origin,
    Role,
    State,
    Tuning,
)

__all__ = [
    "ADAPTED",
    "AFTER_TUNING",
    "ALIGNED",
    "AXES",
    "BASE",
    "CHECKS",
    "DESTROYED",
    "LIMITS",
    "Adaptation",
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
