"""What lies behind a row: reasons, axes, worst cells, protocols; folded until wanted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from spqr_checks.matrix import AXES
from spqr_checks.reports import toml
from spqr_checks.reports.leaderboard.markup import Html, element, outside, together, words
from spqr_checks.reports.leaderboard.ranking import scrolling
from spqr_checks.reports.leaderboard.wording import rank_text
from spqr_checks.reports.selection import axis_rows, control_failures, failing
from spqr_checks.reports.selection import headline as run_headline
from spqr_checks.reports.text import VERDICTS, figure, limit, reason, score, span
from spqr_checks.scoring.board import Leaderboard, Row
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.comparable import CANDIDATES_OWN
from spqr_checks.scoring.scorecard import Scorecard

_CELLS = 20


def details(board: Leaderboard, cards: Mapping[str, Scorecard]) -> Html:
    """One folded part for every row."""
    return together(_candidate(row, cards.get(row.name)) for row in board.rows)


def settings(board: Leaderboard) -> Html:
    """What all candidates were measured with, folded."""
    if not board.settings:
        return Html("")
    return element(
        "details",
        element("summary", words("Settings that all candidates share")),
        _toml(board.settings),
    )


def _candidate(row: Row, card: Scorecard | None) -> Html:
    rank = element("span", words(rank_text(row)), class_="rank")
    parts = [element("summary", rank, Html(" "), outside(row.name))]
    if row.reason:
        parts.append(element("p", words(row.reason), class_="fault"))
    if card is not None:
        parts += [
            element("p", words(run_headline(card))),
            _list(card.gate.reasons),
            _axes(card),
            _cells("Cells that did not pass", failing(card)),
            _cells("Controls that did not hold", control_failures(card)),
            _protocols(row),
            _own_settings(card),
            element("p", words(f"fingerprint {row.fingerprint}"), class_="quiet"),
        ]
    return element("details", together(parts))


def _list(lines: Sequence[str]) -> Html:
    if not lines:
        return Html("")
    return element("ul", together(element("li", outside(line)) for line in lines))


def _axes(card: Scorecard) -> Html:
    header = ["axis", "score", "raw", "interval of raw", *VERDICTS.values()]
    rows = [
        [
            name,
            score(a.score),
            score(a.raw),
            span(a.interval),
            *_counts(a.passed, a.failed, a.inconclusive, a.not_measurable, a.errors),
        ]
        for name, a in axis_rows(card)
    ]
    return _table("Axes", header, rows)


def _counts(*counts: int) -> list[str]:
    return [str(count) for count in counts]


def _cells(title: str, results: Sequence[CellResult]) -> Html:
    if not results:
        return Html("")
    rows = [
        [
            r.cell.id,
            VERDICTS[r.verdict],
            figure(r.value, r.unit),
            span(r.interval, r.unit),
            limit(r),
            str(r.n),
            reason(r),
        ]
        for r in results[:_CELLS]
    ]
    header = ["cell", "verdict", "value", "interval", "needed", "n", "reason"]
    rest = len(results) - _CELLS
    more = element("p", words(f"and {rest} more, see scorecard.json"), class_="quiet")
    return together([_table(title, header, rows), more if rest > 0 else Html("")])


def _protocols(row: Row) -> Html:
    rows = [
        [name, *map(score, (p.spqr, p.S, p.P, p.Q, p.R))]
        for name, p in sorted(row.protocols.items())
    ]
    title = "Under each protocol, without the pass factor"
    return _table(title, ["protocol", "SPQR", *AXES], rows) if rows else Html("")


def _own_settings(card: Scorecard) -> Html:
    own = {key: value for key, value in card.settings.items() if key in CANDIDATES_OWN}
    return _toml(own) if own else Html("")


def _toml(values: Mapping[str, object]) -> Html:
    """A line of settings is a line of the page; nothing in it is obeyed."""
    try:
        lines = toml.dumps(values, "tool.spqr").splitlines()
    except ValueError as error:
        lines = [f"these settings cannot be written as TOML: {error}"]
    return element("pre", element("code", Html("\n".join(words(line) for line in lines))))


def _table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> Html:
    head = element("thead", element("tr", *(element("th", words(h), scope="col") for h in header)))
    body = element(
        "tbody",
        together(
            element(
                "tr",
                element("th", outside(first), scope="row"),
                *(element("td", outside(text)) for text in others),
            )
            for first, *others in rows
        ),
    )
    caption = element("caption", words(title))
    return scrolling(title, element("table", caption, head, body, class_="plain"))
