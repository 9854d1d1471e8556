"""Options of AlignGuard. Light: no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from spqr_checks.alignment.training.preference_options import Count, PreferenceOptions


class AlignGuardOptions(PreferenceOptions):
    """Options of AlignGuard beside those of all preference methods.

    ``learning_rate`` is 1e-5 · batch if not given, as the launcher's ``--scale_lr`` makes it.

    Attributes:
        pairing: the caption of a pair is its harmful prompt (``unsafe_prompt``), or it is there
            twice, with the harmful and with the safe prompt (``both``).
        merge: how experts become one adapter; ``joint`` trains one on all data instead
            ("All-single" in the paper).
        statistic: ``co-merge`` counts for which expert the signal was the largest most often
            (``vote``), or compares their means.
        granularity: what ``co-merge`` gives to one expert: an output unit (``row``), a layer
            (``matrix``), an entry, or rows of the factors A and B.
        density: share of the entries that ``ties`` keeps.
        truncate: rank that the merged adapter is cut to. If not given, exact merges are not cut,
            and those that are no low-rank product have rank · number of categories.
        calibration: prompts per category that ``co-merge`` measures signals on.
        calibration_timesteps: at how many timesteps it does.
    """

    warmup: Annotated[int, Field(ge=0)] = 500
    pairing: Literal["unsafe_prompt", "both"] = "unsafe_prompt"
    merge: Literal["co-merge", "average", "sum", "ties", "joint"] = "co-merge"
    statistic: Literal["vote", "mean"] = "vote"
    granularity: Literal["row", "matrix", "entry", "factor_rows"] = "row"
    density: Annotated[float, Field(gt=0, le=1)] = 0.2
    truncate: Count | None = None
    calibration: Count = 8
    calibration_timesteps: Count = 4
