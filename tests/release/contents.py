"""What the distributions must contain, and under which licence."""

from __future__ import annotations

import re
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from email import message_from_string
from typing import TYPE_CHECKING, Final

import greenpg
from tests.environments import ROOT
from tests.unit.layers import PACKAGES

if TYPE_CHECKING:
    from email.message import Message
    from pathlib import Path

LICENCES: Final = {
    "LICENSE": "GNU LESSER GENERAL PUBLIC LICENSE",
    "COPYING": "GNU GENERAL PUBLIC LICENSE",  # the LGPL is a supplement to it
}
EXPRESSION: Final = "LGPL-3.0-or-later"
NOT_IN_SDIST: Final = (".ci/",)
MADE: Final = "PKG-INFO"
OTHERS: Final = re.compile(rb"copyright|spdx-license-identifier|licensed under", re.I)
_RELATIVE: Final = re.compile(r"\]\((?!https?://|#)([^)\s]+)\)")
_HEADING: Final = re.compile(r"^## (.+)$", re.M)


def tracked() -> set[str]:
    """Return the files of the checkout that git tracks."""
    command = ["git", "-C", str(ROOT), "ls-files"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def metadata(wheel: Path) -> Message:
    """Return the wheel's METADATA."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_string(archive.read(name).decode())


def extras(wheel: Path) -> list[str]:
    """Return the names of the wheel's extras."""
    return metadata(wheel).get_all("Provides-Extra", [])


def faults(sdist: Path, wheel: Path) -> Iterator[str]:
    """Yield what is wrong with the distributions."""
    yield from _differences("sdist", in_sdist(sdist), tracked_for_sdist())
    yield from _differences("wheel", in_wheel(wheel), tracked_for_wheel())
    yield from _wrong_metadata(metadata(wheel))
    yield from _foreign(wheel)
    for name, title in LICENCES.items():
        if (ROOT / name).read_text().split("\n", 1)[0].strip() != title:
            yield f"{name} is not the {title}"


def in_sdist(sdist: Path) -> set[str]:
    """Return the sdist's files, relative to its folder."""
    with tarfile.open(sdist) as archive:
        return {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}


def in_wheel(wheel: Path) -> set[str]:
    """Return the wheel's files without the metadata."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def tracked_for_sdist() -> set[str]:
    return {name for name in tracked() if not name.startswith(NOT_IN_SDIST)} | {MADE}


def tracked_for_wheel() -> set[str]:
    return {name for name in tracked() if name.split("/", 1)[0] in PACKAGES}


def _differences(name: str, found: set[str], expected: set[str]) -> Iterator[str]:
    if extra := found - expected:
        yield f"the {name} has files that git does not track: {sorted(extra)}"
    if missing := expected - found:
        yield f"the {name} lacks {sorted(missing)}"


def _wrong_metadata(found: Message) -> Iterator[str]:
    wanted = {"Name": "greenpg", "Version": greenpg.version, "License-Expression": EXPRESSION}
    for field, value in wanted.items():
        if found[field] != value:
            yield f"{field} is {found[field]!r} in the wheel's metadata, not {value!r}"
    if set(found.get_all("License-File", [])) != set(LICENCES):
        yield f"the wheel's licences are {found.get_all('License-File')}"


def _foreign(wheel: Path) -> Iterator[str]:
    """Yield the packaged files that claim a licence or an owner: all of it is greenpg's own."""
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(in_wheel(wheel)):
            if claim := OTHERS.search(archive.read(name)):
                yield f"{name} says {claim[0].decode()!r}: name its licence in LICENSE and here"


def left_to_do() -> Iterator[str]:
    """Yield what is to be done by hand when the date of the release is known."""
    heading = _HEADING.findall((ROOT / "CHANGELOG.md").read_text())[0]
    if not re.fullmatch(rf"\[{re.escape(greenpg.version)}\] - \d{{4}}-\d\d-\d\d", heading):
        yield f"CHANGELOG.md begins with {heading!r}, not with '[{greenpg.version}] - DATE'"
    readme = (ROOT / "README.md").read_text()
    if relative := sorted(set(_RELATIVE.findall(readme))):
        yield f"README.md has links that a package index cannot follow: {', '.join(relative)}"
    if "URL-OF-THIS-REPOSITORY" in readme:
        yield "README.md does not say where the repository is"
