"""Makes this process green as the plan on standard input says, then runs psycopg2's tests in it.

It is a script, and recorder a top-level module, because the suite's own package is `tests` too.
"""

import json
import sys
from importlib import import_module


def make_green(backend: str) -> None:
    """Monkey-patch for the green library, before anything else is imported."""
    if backend == "gevent":
        import_module("gevent.monkey").patch_all()
    elif backend == "eventlet":
        import_module("eventlet").monkey_patch(psycopg=False)


def main() -> None:
    plan = json.load(sys.stdin)
    backend = plan["backend"]
    make_green(backend)
    recorder = import_module("recorder")
    sys.path[0] = plan["suite"]
    if backend != "blocking":
        import_module(f"greenpg_{backend}").patch_psycopg()
    recorder.run(import_module("tests").test_suite(), plan)


main()
