"""`make_report`: from run folders to report.html, report.md, report.json and table.txt."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from prism_nemo.artifacts import Request, publish, write_whole
from prism_nemo.artifacts.manifest import CARD, SIGNATURE
from prism_nemo.errors import InputError
from prism_nemo.report.card import CARDS, model_card
from prism_nemo.report.compare import names
from prism_nemo.report.facts import facts
from prism_nemo.report.page import Page, html, markdown, sections_of
from prism_nemo.report.run import Run, read_run
from prism_nemo.report.terminal import terminal_table


def make_report(runs: Sequence[Path], out: Path) -> Path:
    """Write the report of one or more run folders as the artifact `out`; returns the path of its report.html.

    The page needs no network and no other file. report.md is the same for a pull request, report.json for a program,
    table.txt the four arms for a terminal, cards/STAGE.md a model card for each trained checkpoint; the card also
    becomes the README.md of that checkpoint, which is no part of its fingerprint. What a run lacks is named as missing.
    An older report at `out` is replaced. Raises InputError for a folder that holds no run, a damaged file in it, or an
    `out` that is no report.
    """
    if not runs:
        raise InputError("no run given; name the folder of at least one: prism report runs/tiny_dense")
    _check_out(out)
    read = [read_run(Path(folder)) for folder in runs]
    *before, last = names(read)
    page = Page(title=" and ".join([*filter(None, [", ".join(before)]), last]), runs=read, parts=sections_of(read))
    request = Request(kind="report", parameters={"runs": names(read)}, inputs=_inputs(read))
    with publish(out, request) as draft:
        (draft.path / "report.html").write_text(html(page), encoding="utf-8")
        (draft.path / "report.md").write_text(markdown(page), encoding="utf-8")
        (draft.path / "report.json").write_text(
            json.dumps(facts(read), indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
        )
        _write_cards(read, draft.path / "cards")
        (draft.path / "table.txt").write_text(terminal_table(read), encoding="utf-8")
    return out / "report.html"


def _write_cards(runs: Sequence[Run], folder: Path) -> None:
    """A model card per trained checkpoint, here and as its README.md; only for a single run, whose stages name them."""
    folder.mkdir()
    for stage in CARDS if len(runs) == 1 else ():
        if stage in runs[0].manifests:
            card = model_card(runs[0], stage)
            (folder / f"{stage}.md").write_text(card, encoding="utf-8")
            _place_card(card, runs[0].path / stage / CARD)


def _place_card(card: str, place: Path) -> None:
    """Beside the weights, unless a card stands there that somebody else wrote."""
    if not os.access(place.parent, os.W_OK) or (place.is_file() and SIGNATURE not in place.read_text(encoding="utf-8")):
        return
    write_whole(place, card)


def _check_out(out: Path) -> None:
    if out.exists() and not (out / "report.html").is_file():
        raise InputError(f"{out} exists and is no report; choose another --out")


def _inputs(runs: Sequence[Run]) -> dict[str, Path]:
    """Every finished artifact of every run."""
    several = len(runs) > 1
    return {
        f"{name}/{stage}" if several else stage: run.path / stage
        for run, name in zip(runs, names(runs), strict=True)
        for stage in run.manifests
    }
