"""Runs part of Django's own test suite.

`python django_suite.py LIBRARY ENGINE DIRECTORY LABEL ...`, where LIBRARY is gevent or eventlet,
monkey-patched, or "none" for a plain process.
"""

import os
import runpy
import sys
from importlib import import_module
from pathlib import Path
from typing import Final

MONKEY: Final = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
    "none": "",
}


def main(library: str, engine: str, directory: str, *labels: str) -> None:
    """Run the labels; exit with the code of Django's runtests.py."""
    exec(MONKEY[library])
    if library != "none":
        import_module(f"greenpg_{library}").patch_psycopg()
    os.environ["DJANGO_ENGINE"] = engine
    os.chdir(directory)
    sys.path.insert(0, directory)
    settings = "tests.frameworks.django_project.suite_settings"
    sys.argv = ["runtests.py", f"--settings={settings}", "--parallel=1", "--noinput", *labels]
    runpy.run_path(str(Path(directory) / "runtests.py"), run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
