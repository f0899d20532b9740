"""The installed frameworks' own tests, which only their source distributions contain."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

SECONDS: Final = 240


def source(home: Path, name: str) -> Path:
    """Return the unpacked source of the installed version; `home` keeps it for later runs."""
    release = f"{name}-{version(name)}"
    whole = home / release
    if not whole.is_dir():
        order = [sys.executable, "-m", "pip", "download", "-q", "--no-deps"]
        order += ["--no-binary", name, "--dest", str(home), release.replace("-", "==")]
        subprocess.run(order, check=True, timeout=SECONDS)
        with tarfile.open(home / f"{release}.tar.gz") as archive:
            archive.extractall(home / "aside", filter="data")
        os.replace(home / "aside" / release, whole)  # a run may be interrupted while it extracts
    return whole
