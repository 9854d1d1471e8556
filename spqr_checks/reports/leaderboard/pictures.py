"""Images before and after benign fine-tuning; flagged ones are veiled until asked for."""

from __future__ import annotations

from collections.abc import Mapping

from spqr_checks.errors import UserError
from spqr_checks.reports.leaderboard.album import Album, Picture
from spqr_checks.reports.leaderboard.markup import Html, element, outside, together, words
from spqr_checks.reports.leaderboard.pairs import Pair, pairs
from spqr_checks.reports.text import plural, shorten
from spqr_checks.scoring.board import Leaderboard
from spqr_checks.scoring.cell_result import ImageRef
from spqr_checks.scoring.scorecard import Scorecard

PER_CANDIDATE = 12
_ALT = 160


def pictures(board: Leaderboard, cards: Mapping[str, Scorecard], album: Album) -> Html:
    """A grid of pairs for each candidate, in rank order."""
    found = {row.name: pairs(cards[row.name]) for row in board.rows if row.name in cards}
    grids = {name: _grid(own, album) for name, own in found.items() if own}
    return together(
        element(
            "details",
            element("summary", outside(name), Html(" "), words(f"· {_counted(found[name])}")),
            grid,
            open="" if number == 0 else None,
            class_="pictures",
        )
        for number, (name, grid) in enumerate(grids.items())
    )


def _counted(found: list[Pair]) -> str:
    new = sum(pair.change == "newly unsafe" for pair in found)
    return f"{plural(len(found), 'pair')}, {new} newly unsafe"


def _grid(found: list[Pair], album: Album) -> Html:
    """At most so many pairs; says how many are not shown, and names what cannot be."""
    figures: list[Html] = []
    fault = ""
    for pair in found[:PER_CANDIDATE]:
        try:
            drawn = album.pictures(pair.before, pair.after)
        except UserError as error:
            fault = str(error)
            break
        if drawn is None:
            fault = "The page has no room for more pictures."
            break
        figures.append(_figure(pair, drawn))
    parts = [element("div", together(figures), class_="grid")] if figures else []
    if fault:
        parts.append(element("p", words(fault), class_="fault"))
    rest = len(found) - len(figures)
    if rest:
        parts.append(element("p", words(f"{plural(rest, 'pair')} not shown."), class_="quiet"))
    return together(parts)


def _figure(pair: Pair, drawn: list[Picture]) -> Html:
    before, after = (
        _picture(title, ref, picture)
        for title, ref, picture in zip(
            ("before", "after"), (pair.before, pair.after), drawn, strict=True
        )
    )
    cell = pair.cell
    tuning = "" if cell.state.tuning is None else cell.state.tuning.name
    where = f"{cell.concept}, {cell.language}, {cell.domain} · {tuning} · seed {pair.after.seed}"
    return element(
        "figure",
        element("div", before, after, class_="pair"),
        element(
            "figcaption",
            element("span", words(pair.change), class_="change" + " bad" * pair.after.flagged),
            Html(" "),
            outside(pair.after.prompt),
            element("small", outside(where)),
        ),
    )


def _picture(title: str, ref: ImageRef, picture: Picture) -> Html:
    prompt = shorten(ref.prompt, _ALT)
    kind = "sharp small" if picture.is_small else "sharp"
    sharp = element("img", src=picture.source, alt=f"{title} fine-tuning: {prompt}", class_=kind)
    name = element("span", words(title), class_="when")
    if picture.veil is None:
        return element("div", sharp, name, class_="picture")
    # a checkbox needs no script, and the space bar works it
    return element(
        "label",
        element(
            "input",
            type="checkbox",
            aria_label=f"show the flagged image {title} fine-tuning: {prompt}",
        ),
        element("img", src=picture.veil, alt="flagged image, blurred", class_="veil"),
        sharp,
        element("span", words("flagged: show"), class_="hint show", aria_hidden="true"),
        element("span", words("hide"), class_="hint hide", aria_hidden="true"),
        name,
        class_="picture flagged",
    )
