"""`spqr align METHOD`: an alignment method applied to a base, kept as a folder of the user's."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from spqr_checks.cli.arguments import assigned, say, settings_of
from spqr_checks.errors import UserError

if TYPE_CHECKING:
    from spqr_checks.alignment.request import Progress

_FIELDS = {name: name for name in ("base", "threads", "device", "dtype")} | {
    name: f"alignment_{name}" for name in ("prompts", "languages", "seed")
}
"""Options of the command and the settings that they stand for."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.description = (
        "Writes what the method learned (a LoRA adapter, a denoiser's weights or guidance) into a "
        "new folder, which `--spqr-candidate DIR` measures."
    )
    parser.add_argument("method", metavar="METHOD", help="uce, esd, …; an unknown name lists all")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--base", metavar="PIPELINE", help="directory, Hub id or miniature")
    parser.add_argument("--prompts", metavar="FILES", help="prompts with anchors to learn from")
    parser.add_argument("--concepts", metavar="NAMES", help="concepts or categories; default: all")
    parser.add_argument("--languages", metavar="CODES", help="languages of these prompts")
    parser.add_argument("--seed", type=int)
    said = "of the CPU; one by default, as another number rounds differently"
    parser.add_argument("--threads", type=int, help=said)
    parser.add_argument("--device")
    parser.add_argument("--dtype")
    said = "an option of the method, as in --set steps=200"
    parser.add_argument("--set", action="append", default=[], metavar="OPTION=VALUE", help=said)
    said = "also write DIR/pipeline, the aligned diffusers pipeline"
    parser.add_argument("--save-pipeline", action="store_true", help=said)
    parser.set_defaults(command=align_base)


def align_base(options: argparse.Namespace) -> int:
    """Runs the command. Raises UserError for the user's mistakes, before anything is trained."""
    from spqr_checks.alignment.registry import method
    from spqr_checks.prompts.prompt_set import PromptSet
    from spqr_checks.runtime.requests import alignment_request

    chosen, settings = method(options.method), settings_of(options, _FIELDS)
    parsed = chosen.parse(assigned(settings.method.get(chosen.name, {}), options.set))
    if not settings.alignment_prompts:
        raise UserError("nothing to learn from: set --prompts to a prompt file with anchors")
    concepts = options.concepts.split(",") if options.concepts else None
    prompts = PromptSet.load(settings.alignment_prompts)
    request = alignment_request(settings, prompts.narrowed(concepts, settings.alignment_languages))
    out: Path = options.out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: already there and not empty; choose another --out")
    from spqr_checks.models.pipelines import load_pipeline

    pipe = load_pipeline(settings.base, settings.dtype, settings.device)
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        start = time.monotonic()
        chosen.align(pipe, request, parsed, work, _print_progress)
        say(f"{chosen.name}: {time.monotonic() - start:.1f} s{_peak_memory()}", file=sys.stderr)
        if options.save_pipeline:
            _save_pipeline(settings.base, settings.dtype, work)
        work.chmod(0o755)
        work.replace(out)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    say(out)
    return 0


def _save_pipeline(base: str, dtype: str, folder: Path) -> None:
    from spqr_checks.alignment.registry import apply_alignment
    from spqr_checks.generation.guidance.base import guidance_of
    from spqr_checks.models.pipelines import load_pipeline

    pipe = load_pipeline(base, dtype)
    apply_alignment(pipe, folder)
    if guidance_of(pipe) is not None:
        raise UserError(
            "--save-pipeline: this method changes how images are drawn and no weights, so a "
            "pipeline's files cannot hold it; leave the option out"
        )
    pipe.save_pretrained(folder / "pipeline", safe_serialization=True)


def _print_progress(progress: Progress) -> None:
    left = (progress.steps - progress.step) / max(progress.steps_per_second, 1e-9)
    say(
        f"step {progress.step}/{progress.steps}  loss {progress.loss:.4f}  "
        f"{progress.steps_per_second:.2f} steps/s  peak {progress.peak_memory / 2**30:.2f} GiB  "
        f"{int(left) // 60}:{int(left) % 60:02d} left",
        file=sys.stderr,
    )


def _peak_memory() -> str:
    try:
        import resource
    except ImportError:  # not on Windows
        return ""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f", peak {peak / (2**30 if sys.platform == 'darwin' else 2**20):.2f} GiB"
