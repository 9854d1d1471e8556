"""Options with which every method needs a few steps, for tests of what all of them do."""

from __future__ import annotations

from typing import Any

TRAINS = {"steps": 2, "batch": 2, "learning_rate": 1e-2, "pool": 2, "keep_weight": 1.0}
PREFERS = TRAINS | {"pairs": 2, "rank": 2, "beta": 50.0, "warmup": 0}
QUICK: dict[str, dict[str, Any]] = {
    "uce": {},
    "rece": {"epochs": 1},
    "esd": TRAINS,
    "sdd": TRAINS | {"ema": 0.0},
    "ca": TRAINS | {"regularisation": 1.0},
    "salun": TRAINS,
    "erasediff": TRAINS,
    "scissorhands": TRAINS | {"blocks": ["mid_block."], "draws": 1, "project": "gem"},
    "stereo": TRAINS
    | {"rounds": 1, "tokens": 1, "template": "a {}", "search_steps": 1, "inversion_steps": 1},
    "advunlearn": {
        "steps": 2,
        "latents": "pool",
        "pool": 2,
        "calm_steps": 1,
        "attack_steps": 1,
        "learning_rate": 1e-2,
    },
    "safree": {"most_steps": 1, "midpoint": -100},
    "resalign": TRAINS | {"inner_steps": 2, "simulated": 1, "unlearning": "anchor"},
    "pgu": TRAINS | {"harden_steps": 2, "harden_rate": 1e-2, "inputs": 4},
    "mace": TRAINS | {"images": 2, "lam": 0.1, "prior_scale": 0.1, "fuse_scale": 0.1},
    "fmn": TRAINS | {"tokens": 2, "template": "a {}", "inversion_steps": 2},
    "spm": TRAINS | {"latents": "pool", "warmup": 0, "learning_rate": 0.3},
    "alignguard": PREFERS | {"calibration": 1, "calibration_timesteps": 2},
    "duo": {name: value for name, value in PREFERS.items() if name != "keep_weight"},
    "sc-dpo": PREFERS,
    "modular-lora": {"loss": "esd", "esd": TRAINS | {"rank": 2}},
    "sld": {"preset": "max"},
    "safe-latent-blend": {"weight": 0.8, "tau": 0.0},
}
