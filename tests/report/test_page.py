"""The page looked at in headless Chromium: quiet, drawn, readable at two widths, light and dark, with the keyboard."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
LOOKS = [(width, scheme) for width in (1280, 390) for scheme in ("light", "dark")]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: install the package chromium, or set CHROMIUM"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


class Look:
    """The page at one width and scheme, and what it said and asked for while it opened."""

    def __init__(self, browser: Any, page: Path, width: int, scheme: str) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(page.as_uri())


@pytest.fixture(scope="module", params=LOOKS, ids=[f"{width}-{scheme}" for width, scheme in LOOKS])
def look(request: pytest.FixtureRequest, browser: Any, report: Path) -> Iterator[Look]:
    found = Look(browser, report / "report.html", *request.param)
    yield found
    found.context.close()


def test_says_nothing_and_asks_for_nothing(look: Look, report: Path) -> None:
    assert look.said == []
    assert look.asked == [(report / "report.html").as_uri()]


def test_every_figure_is_drawn(look: Look) -> None:
    drawings = look.page.evaluate(
        """() => [...document.querySelectorAll('.drawing')].map(d => {
            const box = d.querySelector('svg').getBoundingClientRect();
            return {label: d.ariaLabel, width: box.width, height: box.height,
                    shapes: d.querySelectorAll('path, use').length, texts: d.querySelectorAll('text').length};
        })"""
    )
    assert len(drawings) >= 18
    for drawing in drawings:
        assert drawing["label"], drawing
        assert min(drawing["width"], drawing["height"]) > 90, drawing
        assert min(drawing["shapes"], drawing["texts"]) >= 3, drawing


def test_nothing_is_wider_than_the_window_but_inside_its_own_scroll_box(look: Look) -> None:
    sizes = look.page.evaluate(
        """() => [document.documentElement.scrollWidth, window.innerWidth,
            [...document.querySelectorAll('.scroll')].every(e => getComputedStyle(e).overflowX === 'auto')]"""
    )
    assert sizes[0] <= sizes[1]
    assert sizes[2]


def test_names_break_at_their_parts_only(look: Look) -> None:
    """On a phone `analysis_behaviour` may go on in the next line after `analysis_`, not after `analysis_behaviou`."""
    broken = look.page.evaluate(
        """() => {
            const found = [];
            for (const cell of document.querySelectorAll('tbody th')) {
                const walker = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
                for (let node; (node = walker.nextNode()); ) {
                    for (const part of node.data.matchAll(/[^\\s-]+/g)) {
                        const range = document.createRange();
                        range.setStart(node, part.index);
                        range.setEnd(node, part.index + part[0].length);
                        if (range.getClientRects().length > 1) found.push(part[0]);
                    }
                }
            }
            return found;
        }"""
    )
    assert broken == []


def test_text_is_large_enough_to_read(look: Look) -> None:
    smallest = look.page.evaluate(
        """() => {
            let least = 99;
            for (const text of document.querySelectorAll('.drawing text')) {
                const matrix = text.getScreenCTM(), scale = Math.hypot(matrix.a, matrix.b);
                least = Math.min(least, parseFloat(getComputedStyle(text).fontSize) * scale);
            }
            for (const text of document.querySelectorAll('p, td, th, li, a, dd, dt, summary, figcaption')) {
                least = Math.min(least, parseFloat(getComputedStyle(text).fontSize));
            }
            return least;
        }"""
    )
    assert smallest >= 10


CONTRASTS = """() => {
    const channel = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const light = rgb => 0.2126 * channel(rgb[0]) + 0.7152 * channel(rgb[1]) + 0.0722 * channel(rgb[2]);
    const parse = text => text.match(/[\\d.]+/g).map(Number);
    const behind = element => {
        for (let e = element; e; e = e.parentElement) {
            const colour = parse(getComputedStyle(e).backgroundColor);
            if (colour.length === 3 || colour[3] === 1) return colour;
        }
        return [255, 255, 255];
    };
    const ratio = (a, b) => {
        const [x, y] = [light(a), light(b)].sort((p, q) => q - p);
        return (x + 0.05) / (y + 0.05);
    };
    const found = {};
    const note = (kind, element, colour) => {
        if (!colour || colour === 'none') return;
        const value = ratio(parse(colour), behind(element));
        if (!(kind in found) || value < found[kind].value)
            found[kind] = {value, colour, text: element.textContent.trim().slice(0, 40)};
    };
    for (const e of document.querySelectorAll('body *')) {
        const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
        if (own && !e.closest('svg') && !['STYLE'].includes(e.tagName)) note('text', e, getComputedStyle(e).color);
        if (e.tagName === 'text') note('text', e, getComputedStyle(e).fill);
        if (e.tagName === 'path' && e.closest('.drawing')) {
            const style = getComputedStyle(e), width = parseFloat(style.strokeWidth);
            const drawn = style.stroke !== 'none' && width >= 1.2 && style.strokeOpacity === '1';
            if (drawn) note('line', e, style.stroke);
        }
    }
    return found;
}"""


def test_contrast_is_wcag_aa(look: Look) -> None:
    look.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    found = look.page.evaluate(CONTRASTS)
    assert found["text"]["value"] >= 4.5, found
    assert found["line"]["value"] >= 3.0, found


def test_everything_is_reached_by_keyboard(look: Look) -> None:
    page = look.page
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = false); document.activeElement.blur()")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    reached = set()
    for _ in range(120):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.tagName + (document.activeElement.ariaLabel || '')"))
    boxes = page.evaluate(
        "[...document.querySelectorAll('.scroll')].filter(e => e.checkVisibility()).map(e => 'DIV' + e.ariaLabel)"
    )
    assert set(boxes) <= reached
    assert "SUMMARY" in reached
    page.focus("summary")
    page.keyboard.press("Enter")
    assert page.evaluate("document.querySelector('details').open")


def test_ids_are_unique_and_links_lead_somewhere(look: Look) -> None:
    ids = look.page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    targets = look.page.evaluate("[...document.querySelectorAll('a[href^=\"#\"]')].map(e => e.hash.slice(1))")
    assert set(targets) <= set(ids)
    for reference in look.page.evaluate(
        "[...document.querySelectorAll('use')].map(e => e.getAttribute('href').slice(1))"
    ):
        assert reference in ids
