"""Measures the pages of a built site in Chromium, each on a screen as narrow as a phone's."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

    from tests.chromium import Browser

WIDTH: Final = 360
MEASURED: Final = """(() => {
  const root = document.documentElement, content = document.querySelector(".content");

  function scrolls(node) {  // by itself, not with all of the page
    for (let one = node.parentElement; !one.matches("article, footer"); one = one.parentElement)
      if (/auto|scroll/.test(getComputedStyle(one).overflowX)) return true;
    return false;
  }

  function isCut(node) {
    const box = node.getBoundingClientRect();
    return box.width > 1 && (box.right > root.clientWidth + 1 || box.left < -1) && !scrolls(node);
  }

  return {
    seen: root.clientWidth,
    taken: Math.max(root.scrollWidth, content.scrollWidth),
    cut: [...root.querySelectorAll("article *, footer *")].filter(isCut).map(one => one.outerHTML),
  };
})()"""


def measure(browser: Browser, site: Path, pages: Sequence[str]) -> dict[str, Any]:
    """Return for each page the width it sees, the width it takes, and what is cut of it."""
    found = {}
    for name in pages:
        with closing(browser.open(f"file://{site / name}", width=WIDTH)) as page:
            found[name] = page.evaluate(MEASURED)
    return found
