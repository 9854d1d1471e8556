"""What a model card says of a run: results in its metadata, and one section of its text.

All else of a card is its owner's and stays, to the byte; what cannot be kept so is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spqr_checks.errors import UserError
from spqr_checks.matrix import AXES, Tuning
from spqr_checks.reports.files import replace
from spqr_checks.reports.html import render
from spqr_checks.reports.markdown import axes_table, escape, fenced_settings, table, things_table
from spqr_checks.reports.selection import coverage, headline, how_decided, remarks
from spqr_checks.reports.text import one_line
from spqr_checks.scoring.scorecard import Scorecard
from spqr_checks.user_files import MOST_BYTES, refuse_irregular

START, END = "<!-- spqr-checks results -->", "<!-- end of spqr-checks results -->"
INDEX = "model-index"
_DATASET = "spqr-checks"
"""Type of the data set of our results, by which they are found again."""
_REASONS = 20


def write_model_card(card: Scorecard, path: Path) -> None:
    """Put a run into a model card; without such a file one is begun.

    Raises:
        UserError: the run has no number, or the file is no model card that can be kept as it is.
    """
    refuse_numberless(card)
    if path.suffix.lower() != ".md":
        raise UserError(f"{path} is no model card: its name must end in .md, such as README.md")
    path = path.resolve()  # a link stays one
    if path.exists():
        refuse_irregular(path, MOST_BYTES)
    try:
        old = path.read_bytes() if path.exists() else b""
        text = old.decode("utf-8")
        new = updated(text, card)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is no model card: it is not UTF-8 text") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    remedy = "See to it that the file can be written, and try again."
    replace(path, new.encode("utf-8"), lambda now: now == old, remedy)


def refuse_numberless(card: Scorecard) -> None:
    """Raises UserError for a run that is incomplete or measured users' own checks alone."""
    if not card.complete or card.spqr is None:
        raise UserError("the scorecard has no number (incomplete run): nothing for a model card")


def updated(text: str, card: Scorecard) -> str:
    """The whole text of a card with this run in it.

    Args:
        text: the card as it is; may be empty.
        card: a run that has a number.

    Raises:
        UserError: metadata or marks of the section cannot be understood.
    """
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    mark = "\ufeff" if text.startswith("\ufeff") else ""
    body = text.removeprefix(mark)
    newline = "\r\n" if "\r\n" in text else "\n"
    found = REGEX_YAML_BLOCK.search(body)
    if found is None:
        if body.lstrip().startswith("---"):
            raise UserError("its metadata begin with --- and do not end with one")
        metadata = _with_results("", card, newline)
        return f"{mark}---{newline}{metadata}{newline}---{newline}{_section(body, card, newline)}"
    before, old, after = body[: found.start(2)], found[2], found[3]
    metadata = _with_results(old, card, newline)
    return f"{mark}{before}{metadata}{after}{_section(body[found.end() :], card, newline)}"


def section(card: Scorecard) -> str:
    """Our part of a card's text, between its two marks."""
    from markupsafe import Markup

    def safe(text: str) -> Markup:  # the template must not escape for HTML what is Markdown
        return Markup(text.encode("utf-8", "backslashreplace").decode())

    return render(
        "model_card.md.j2",
        start=safe(START),
        end=safe(END),
        headline=safe(f"**{escape(headline(card))}**"),
        axes=safe(axes_table(card)),
        said=[safe(escape(x)) for x in (*coverage(card), *how_decided(card), *remarks(card))],
        reasons=[safe(escape(reason)) for reason in card.gate.reasons[:_REASONS]],
        measured=safe(things_table(card)),
        varied=safe(_varied(card)),
        # in TOML's strings, where alone it can stand, this is the same sign, and ends no comment
        settings=safe(fenced_settings(card).replace("<", "\\u003C")),
    ).removesuffix("\n")


def _varied(card: Scorecard) -> str:
    """Prompts, and what the candidate was fine-tuned with."""
    changes = [result.cell.state.change for result in card.cells]
    tunings = [change for change in changes if isinstance(change, Tuning)]
    prompts = card.settings.get("prompts") or ["the preset's"]
    rows = {
        "prompts": prompts if isinstance(prompts, list | tuple) else [prompts],
        "fine-tuning profiles": sorted({tuning.profile for tuning in tunings}),
        "data sets": sorted({tuning.dataset for tuning in tunings}),
        "fine-tuning seeds": sorted({tuning.seed for tuning in tunings}),
    }
    shown = [[name, escape(", ".join(map(str, values)))] for name, values in rows.items()]
    return table(["", "measured with"], shown)


def _section(body: str, card: Scorecard, newline: str) -> str:
    """The text with our section in the place of the earlier one, or at its end."""
    ours = section(card).replace("\n", newline)
    counts = (body.count(START), body.count(END))
    if counts == (0, 0):
        return f"{body}{newline if body else ''}{newline}{ours}{newline}"
    start, end = body.find(START), body.find(END)
    if counts != (1, 1) or end < start:
        raise UserError(f"{START} and {END} must stand there once each, in this order")
    return f"{body[:start]}{ours}{body[end + len(END) :]}"


def _with_results(metadata: str, card: Scorecard, newline: str) -> str:
    """The metadata with our results in their model-index; the rest as it is."""
    import yaml
    from huggingface_hub import ModelCard

    try:
        root = yaml.compose(metadata, Loader=yaml.SafeLoader)
        known = yaml.safe_load(metadata)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"its metadata are not YAML: {one_line(str(error))}") from None
    known = {} if known is None else known
    if not isinstance(known, dict) or (root is not None and root.flow_style):
        raise UserError("its metadata are no lines of `key: value`")
    index = _index(known.get(INDEX), card)
    dumped = yaml.dump({INDEX: index}, allow_unicode=True, sort_keys=False, line_break=newline)
    written = str(dumped).rstrip()
    pairs = [] if root is None else [pair for pair in root.value if pair[0].value == INDEX]
    if len(pairs) > 1:
        raise UserError(f"its metadata have {INDEX} more than once")
    if pairs:
        start, end = pairs[0][0].start_mark.index, _end(pairs[0][1])
        if _has_comment(metadata, start, end):
            raise UserError(f"comments within its {INDEX} would be lost: move them above it")
        rest = metadata[start:end]
        new = metadata[:start] + written + rest[len(rest.rstrip()) :] + metadata[end:]
    else:
        new = f"{metadata}{newline}{written}" if metadata else written
    try:
        again = yaml.safe_load(new)
        # the Hub's own reading of them; others' results may be broken too
        ModelCard(f"---\n{new}\n---\n")
    except (yaml.YAMLError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"its metadata are none of a model: {one_line(str(error))}") from None
    if repr({**known, INDEX: 0}) != repr({**again, INDEX: 0}) or again[INDEX] != index:
        raise UserError(f"its {INDEX} cannot be written without changing other metadata")
    return new


def _end(node: Any) -> int:
    """Where the last thing in a YAML node ends; block nodes themselves reach over comments."""
    if getattr(node, "flow_style", None) or not isinstance(node.value, list) or not node.value:
        return int(node.end_mark.index)
    last = node.value[-1]
    return _end(last[1] if isinstance(last, tuple) else last)


def _has_comment(metadata: str, start: int, end: int) -> bool:
    """Whether anything stands between the tokens of a part of the metadata."""
    import yaml

    at = 0
    for token in yaml.scan(metadata, Loader=yaml.SafeLoader):
        if start <= at < token.start_mark.index <= end and (
            metadata[at : token.start_mark.index].strip()
        ):
            return True
        at = max(at, token.end_mark.index)
    return False


def _index(old: Any, card: Scorecard) -> list[dict[str, Any]]:
    """The model-index with our results in the place of earlier ones; others' are as they were."""
    from huggingface_hub.repocard_data import eval_results_to_model_index

    name = _plain(card.candidate.get("name", "unnamed"))
    (made,) = eval_results_to_model_index(name, list(_results(card)))
    if old is None or old == []:
        return [made]
    if not isinstance(old, list) or not all(
        isinstance(model, dict) and isinstance(model.get("results"), list) for model in old
    ):
        raise UserError(f"its {INDEX} is no list of models with results")
    others = [
        {**model, "results": [one for one in model["results"] if not _is_ours(one)]}
        for model in old
    ]
    mine = [n for n, model in enumerate(old) if any(map(_is_ours, model["results"]))] or [0]
    others[mine[0]]["results"] += made["results"]
    return others


def _is_ours(result: Any) -> bool:
    dataset = result.get("dataset") if isinstance(result, dict) else None
    return isinstance(dataset, dict) and dataset.get("type") == _DATASET


def _results(card: Scorecard) -> Iterator[Any]:
    """`EvalResult` of the number and each axis, with interval and gate."""
    from huggingface_hub import EvalResult

    values = {"spqr": ("SPQR", card.spqr, card.spqr_interval)}
    for letter, axis in AXES.items():
        summary = card.axes[letter]
        values[f"spqr-{letter.lower()}"] = (axis.title, summary.score, summary.interval)
    for kind, (name, value, interval) in values.items():
        if value is not None:
            told: dict[str, Any] = {"protocol": _plain(card.protocol)}
            if interval is not None:
                told["interval"] = [round(bound, 6) for bound in interval]
            if kind == "spqr":
                told["gate"] = "passed" if card.gate.passed else "failed"
            yield EvalResult(
                task_type="text-to-image",
                dataset_type=_DATASET,
                dataset_name="SPQR: safety, prompt adherence, quality, robustness",
                metric_type=kind,
                metric_name=name,
                metric_value=round(value, 6),
                metric_args=told,
            )


def _plain(text: object) -> str:
    return one_line(str(text)).encode("utf-8", "backslashreplace").decode()
