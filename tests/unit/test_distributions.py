"""`make release-check` finds what is wrong with a distribution."""

from __future__ import annotations

import io
import tarfile
import zipfile

import pytest

import greenpg
from tests.release import contents

TRACKED = {".ci/run", "LICENSE", "greenpg/__init__.py", "greenpg/py.typed", "tests/test_one.py"}
SDIST = TRACKED - {".ci/run"} | {"PKG-INFO"}
WHEEL = {"greenpg/__init__.py": "", "greenpg/py.typed": ""}
METADATA = f"""Name: greenpg
Version: {greenpg.version}
License-Expression: LGPL-3.0-or-later
License-File: LICENSE
License-File: COPYING
Provides-Extra: gevent
"""


@pytest.fixture
def faults(tmp_path, monkeypatch):
    """A function that returns the faults of distributions with these files."""
    monkeypatch.setattr(contents, "tracked", lambda: TRACKED)

    def faults(sdist=SDIST, wheel=WHEEL, metadata=METADATA):
        with tarfile.open(tmp_path / "sdist", "w") as archive:
            for name in sdist:
                archive.addfile(tarfile.TarInfo(f"greenpg-1/{name}"), io.BytesIO())
        with zipfile.ZipFile(tmp_path / "wheel", "w") as archive:
            for name, text in {**wheel, "greenpg-1.dist-info/METADATA": metadata}.items():
                archive.writestr(name, text)
        return "\n".join(contents.faults(tmp_path / "sdist", tmp_path / "wheel"))

    return faults


def test_whole_distributions_have_no_faults(faults):
    assert faults() == ""


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"sdist": SDIST | {"secrets.txt"}}, "git does not track: ['secrets.txt']"),
        ({"sdist": SDIST - {"LICENSE"}}, "the sdist lacks ['LICENSE']"),
        ({"wheel": {**WHEEL, "tests/one.py": ""}}, "git does not track: ['tests/one.py']"),
        ({"wheel": {"greenpg/__init__.py": ""}}, "the wheel lacks ['greenpg/py.typed']"),
        ({"wheel": {**WHEEL, "greenpg/py.typed": "Copyright 2020 X"}}, "py.typed says 'Copyright'"),
        ({"metadata": METADATA.replace(greenpg.version, "9.9")}, "Version is '9.9'"),
        ({"metadata": METADATA.replace("License-File: COPYING\n", "")}, "licences are ['LICENSE']"),
    ],
)
def test_fault_is_named(faults, wrong, text):
    assert text in faults(**wrong)


def test_extras_are_the_wheels(faults, tmp_path):
    faults()

    assert contents.extras(tmp_path / "wheel") == ["gevent"]
