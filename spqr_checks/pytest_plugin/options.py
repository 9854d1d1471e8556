"""Command-line options of the plugin and the settings that they set. Light."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Option:
    """One ``--spqr-…`` option; ``field`` is the dotted name of the setting."""

    flag: str
    field: str
    metavar: str
    help: str

    @property
    def dest(self) -> str:
        return self.flag.removeprefix("--").replace("-", "_")

    @property
    def short(self) -> str:
        """The flag where no other program's options stand beside it: ``--profiles``."""
        return "--" + self.flag.removeprefix("--spqr-")


OPTIONS = (
    Option("--spqr-preset", "preset", "NAME", "defaults to start from: miniature, none, …"),
    Option("--spqr-base", "base", "PIPELINE", "unaligned base: directory, Hub id or miniature"),
    Option("--spqr-candidate", "candidate", "WHAT", "base, method:NAME, a directory, Hub id, …"),
    Option("--spqr-adapters", "adapters", "FILES", "LoRA files or folders put on the candidate"),
    Option("--spqr-adapter-scale", "adapter_scale", "X", "scale of these adapters"),
    Option(
        "--spqr-safety-checker",
        "safety_checker",
        "YES",
        "true: the candidate draws with its own safety checker on",
    ),
    Option(
        "--spqr-attach",
        "attach",
        "WHERE",
        "weights that users fine-tune: released, base (Modular LoRA) or auto",
    ),
    Option(
        "--spqr-prompts",
        "prompts",
        "FILES",
        "prompt files, packaged sets or hf:// addresses, as FORMAT=FILE where needed",
    ),
    Option(
        "--spqr-prompts-per-group",
        "prompts_per_group",
        "N",
        "at most N prompts of each concept, language and domain",
    ),
    Option("--spqr-prompt-seed", "prompt_seed", "N", "which of them are chosen"),
    Option(
        "--spqr-doubtful-translations",
        "doubtful_translations",
        "HOW",
        "translations marked as doubtful: skip or use",
    ),
    Option("--spqr-wrap", "wrap", "DOMAINS", "also measure plain prompts as photo, sketch, …"),
    Option(
        "--spqr-alignment-prompts", "alignment_prompts", "FILES", "prompts a method learns from"
    ),
    Option(
        "--spqr-alignment-languages",
        "alignment_languages",
        "CODES",
        "languages of the prompts that a method learns from (default: all)",
    ),
    Option("--spqr-concepts", "concepts", "NAMES", "concepts or categories to measure"),
    Option("--spqr-languages", "languages", "CODES", "languages to measure"),
    Option("--spqr-domains", "domains", "NAMES", "domains to measure"),
    Option("--spqr-profiles", "profiles", "NAMES", "fine-tuning profiles: lite,moderate,standard"),
    Option("--spqr-datasets", "datasets", "SETS", "benign fine-tuning sets (folders)"),
    Option("--spqr-seeds", "seeds", "NUMBERS", "fine-tuning seeds"),
    Option("--spqr-mode", "mode", "MODE", "sequential (draw until decided) or fixed"),
    Option("--spqr-images", "images", "N", "images per safety cell and look"),
    Option("--spqr-image-seed", "image_seed", "N", "seed of each prompt's first image"),
    Option("--spqr-max-images", "max_images", "N", "sequential: most images of a safety cell"),
    Option(
        "--spqr-multiplicity",
        "multiplicity",
        "METHOD",
        "correction for many cells: holm, benjamini-hochberg or none",
    ),
    Option("--spqr-inconclusive", "inconclusive", "HOW", "what is undecided: fail or warn"),
    Option(
        "--spqr-min-tuning-seeds",
        "min_tuning_seeds",
        "N",
        "fine-tuning seeds that a verdict on R needs",
    ),
    Option("--spqr-judge", "judge", "SPEC", "image judge, for example classifier=PATH"),
    Option("--spqr-judge-threshold", "judge_threshold", "P", "probability that counts as unsafe"),
    Option("--spqr-judge-device", "judge_device", "NAME", "where the judge computes (as device)"),
    Option("--spqr-calibration", "calibration", "FILE", "the judge's errors (calibration.json)"),
    Option("--spqr-clip", "clip", "MODEL", "CLIP model for alignment and image features"),
    Option(
        "--spqr-adherence",
        "adherence",
        "SPEC",
        "prompt adherence by clip, open_clip=MODEL, pickscore=MODEL or vqa=MODEL",
    ),
    Option("--spqr-features", "features", "SPEC", "image features: clip or vit=MODEL"),
    Option("--spqr-distance", "distance", "NAME", "distance for quality: cmmd, kid, fid, …"),
    Option("--spqr-reference", "reference", "SET", "reference images for quality"),
    Option("--spqr-protocol", "protocol", "NAME", "anchored, v1, v2-code or v2-published"),
    Option("--spqr-min-score", "min_score", "X", "lowest SPQR that passes the gate"),
    Option("--spqr-baseline", "baseline", "FILE", "earlier scorecard.json; not worse than that"),
    Option("--spqr-max-unsafe", "thresholds.unsafe", "RATE", "S: highest unsafe rate of a cell"),
    Option(
        "--spqr-max-unsafe-tuned",
        "thresholds.unsafe_tuned",
        "RATE",
        "S after fine-tuning: highest unsafe rate of a cell",
    ),
    Option(
        "--spqr-min-adherence", "thresholds.adherence", "RATIO", "P: lowest alignment over base"
    ),
    Option("--spqr-min-quality", "thresholds.quality", "X", "Q: lowest quality"),
    Option("--spqr-max-drift", "thresholds.drift", "POINTS", "R: highest rise of the unsafe rate"),
    Option("--spqr-budget", "budget", "TIME", "begin nothing new after 90s, 30min, 2h, …"),
    Option("--spqr-store", "store", "DIR", "where artefacts are kept (default .spqr)"),
    Option("--spqr-report", "report", "DIR", "where reports go (default spqr-report)"),
    Option("--spqr-device", "device", "NAME", "cpu, cuda, cuda:1, …"),
    Option("--spqr-offload", "offload", "HOW", "weights wait in main memory: model or sequential"),
    Option("--spqr-dtype", "dtype", "NAME", "float32, float16 or bfloat16"),
    Option("--spqr-threads", "threads", "N", "torch threads of each worker"),
)
