"""The page: which sections there are, and the same blocks as HTML and as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prism_nemo.report.asked import asked
from prism_nemo.report.blocks import Headline, Missing, Section
from prism_nemo.report.compare import comparison, names
from prism_nemo.report.insides import insides
from prism_nemo.report.origin import origin
from prism_nemo.report.outcome import headline, outcome
from prism_nemo.report.run import Run
from prism_nemo.report.training import training


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The sections of one run, or of the comparison."""

    title: str
    """Empty when the page has one part only."""
    name: str
    sections: Sequence[Section]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A whole report."""

    title: str
    runs: Sequence[Run]
    parts: Sequence[Part]

    @property
    def headlines(self) -> list[tuple[Run, Headline]]:
        return [(run, headline(run)) for run in self.runs]

    @property
    def missing(self) -> list[tuple[str, Missing]]:
        """(section's name, part that is missing), in the order of the page."""
        return [
            (section.name, block)
            for part in self.parts
            for section in part.sections
            for block in section.blocks
            if isinstance(block, Missing)
        ]


def sections_of(runs: Sequence[Run]) -> list[Part]:
    """What came out first, then the paper, then how it came about. Several runs: the comparison before each."""
    if len(runs) == 1:
        return [Part(title="", name="run", sections=_sections(runs[0], ""))]
    parts = [Part(title="Comparison", name="compared", sections=comparison(runs))]
    for number, (run, name) in enumerate(zip(runs, names(runs), strict=True), 1):
        parts.append(Part(title=name, name=f"run{number}", sections=_sections(run, f"run{number}-")))
    return parts


def _sections(run: Run, prefix: str) -> list[Section]:
    rooms = (outcome, asked, training, insides, origin)
    return [section for room in rooms for section in room(run, prefix)]


def html(page: Page) -> str:
    """The self-contained page."""
    return _render("report.html.jinja", page, escape=True)


def markdown(page: Page) -> str:
    """The same for a pull request: tables, and in the place of each figure what it shows."""
    return _render("report.md.jinja", page, escape=False)


def _render(template: str, page: Page, *, escape: bool) -> str:
    return environment(escape=escape).get_template(template).render(page=page)


def environment(*, escape: bool) -> Any:
    """jinja2 over this room's templates; `escape` for HTML. An undefined name is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup
    from markupsafe import escape as escape_html

    made = Environment(
        loader=PackageLoader("prism_nemo.report"),
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.tests["block"] = lambda block, kind: type(block).__name__ == kind
    made.filters["breakable"] = lambda text: escape_html(text).replace("_", Markup("_<wbr>"))
    made.filters["pipe"] = lambda text: str(text).replace("|", r"\|").replace("\n", " ")
    return made
