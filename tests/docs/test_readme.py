"""The README's links: a package index has no files beside it, hence they must be absolute there."""

from __future__ import annotations

import re
from typing import Final

from .pages import ROOT

LINKS: Final = re.findall(r"\]\(([^)\s]+)\)", (ROOT / "README.md").read_text())
RELATIVE: Final = [link for link in LINKS if "://" not in link]


def test_relative_links_lead_to_files():
    assert [link for link in RELATIVE if not (ROOT / link.partition("#")[0]).is_file()] == []


def test_links_are_absolute_once_the_project_has_an_address():
    has_address = "[project.urls]" in (ROOT / "pyproject.toml").read_text()

    assert not has_address or not RELATIVE
