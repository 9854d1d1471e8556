"""Adaptations by name. A new kind is one new file in this folder.

The file is named after it (``few_step.py``: ``few-step``) and defines ``ADAPTATION``, a class below
`kind.AdaptationKind`; what several share lies beside them without that name. Other distributions
add theirs through ``spqr_checks.adaptations``. No kind's file imports torch at its top.
"""

from __future__ import annotations

from spqr_checks.adaptations.kind import AdaptationKind
from spqr_checks.registry import Registry

ADAPTATIONS: Registry[type[AdaptationKind]] = Registry(
    "adaptation",
    "spqr_checks.adaptations",
    "ADAPTATION",
    "spqr_checks.adaptations",
    lambda found: isinstance(found, type) and issubclass(found, AdaptationKind),
)
