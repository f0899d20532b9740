"""The built site on a phone: no page scrolls sideways, and nothing on it is cut off."""

from __future__ import annotations

import pytest

from tests import chromium
from tests.programs import python

from .pages import DOCS
from .phone import WIDTH, measure

pytestmark = [chromium.needed, pytest.mark.timeout(150)]
FITTING = {"seen": WIDTH, "taken": WIDTH, "cut": []}
PAGE = """<!doctype html><meta name="viewport" content="width=device-width">
<style>body { margin: 0 } .content { overflow-x: auto }</style>
<div class="content"><article>%s</article></div><footer>greenpg</footer>"""
WIDE = '<p style="width: 900px">wide</p>'


@pytest.fixture
def site(tmp_path):
    """The documentation as `make docs` builds it."""
    done = python("-m", "sphinx", "-E", "-q", str(DOCS), str(tmp_path / "site"), seconds=120)
    assert done.returncode == 0, done.stderr
    return tmp_path / "site"


def test_pages_fit(site, browser):
    pages = sorted(str(page.relative_to(site)) for page in site.rglob("*.html"))

    found = measure(browser, site, pages)

    assert len(pages) > 30
    assert {page: facts for page, facts in found.items() if facts != FITTING} == {}
    assert "the greenpg developers" in (site / "index.html").read_text().split("<footer>")[1]


def test_what_is_too_wide_is_found(tmp_path, browser):
    pages = {
        "wide.html": WIDE,
        "scrolled.html": f'<div style="overflow-x: auto">{WIDE}</div>',
        "cut.html": f'<div style="overflow-x: hidden">{WIDE}</div>',
    }
    for name, text in pages.items():
        (tmp_path / name).write_text(PAGE % text)

    found = measure(browser, tmp_path, [*pages])

    assert found == {
        "wide.html": {"seen": WIDTH, "taken": 900, "cut": [WIDE]},
        "scrolled.html": FITTING,
        "cut.html": {"seen": WIDTH, "taken": WIDTH, "cut": [WIDE]},
    }
