"""Gets the tests of the installed psycopg2 from its source distribution."""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path, PurePosixPath

import psycopg2


class SourceError(Exception):
    """psycopg2's source distribution is not available; the text says what to do."""


def installed_version() -> str:
    """Return the version of the importable psycopg2, from a wheel or built from source."""
    version: str = vars(psycopg2)["__version__"]  # missing in types-psycopg2
    return version.split()[0]


def suite_directory(cache: Path) -> Path:
    """Return the directory with psycopg2's `tests/`, downloaded once into `cache`."""
    name = f"psycopg2-{installed_version()}"
    home = cache / name
    if not (home / "tests").is_dir():
        archive = _download(name, cache)
        _unpack_tests(archive, home)
    return home


def _download(name: str, cache: Path) -> Path:
    if found := _archives(name, cache):
        return found[0]
    # pip builds metadata of the download, and psycopg2's setup.py requires pg_config for that.
    if shutil.which("pg_config") is None:
        raise SourceError("no pg_config: install Debian's package libpq-dev, or give --source DIR")
    requirement = name.replace("-", "==", 1)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--no-binary", ":all:", "--dest", str(cache), requirement]
    done = subprocess.run(command, check=False, stdout=sys.stderr)
    if done.returncode or not (found := _archives(name, cache)):
        raise SourceError(f"pip could not download {requirement}; give --source DIR")
    return found[0]


def _archives(name: str, cache: Path) -> list[Path]:
    return sorted(cache.glob(f"{name}.tar.*"))


def _unpack_tests(archive: Path, home: Path) -> None:
    """Extract the modules of `tests/` from the archive, and nothing else."""
    partial = home.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "tests").mkdir(parents=True)
    with tarfile.open(archive) as tar:
        for member in tar:
            if data := _test_module(tar, member):
                (partial / "tests" / PurePosixPath(member.name).name).write_bytes(data)
    shutil.rmtree(home, ignore_errors=True)
    partial.rename(home)


def _test_module(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | None:
    path = PurePosixPath(member.name)
    if len(path.parts) != 3 or path.parts[1] != "tests" or path.suffix != ".py":
        return None
    content = tar.extractfile(member) if member.isfile() else None
    return content.read() if content else None
