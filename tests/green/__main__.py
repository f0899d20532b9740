"""Runs pytest with each test in a green thread: `python -m tests.green gevent patched tests/db`."""

import os
import sys
from typing import Final

MONKEY: Final = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}
MODES: Final = ("patched", "explicit")
OTHER_LOOPS: Final = {
    ("gevent", "libuv-patched"): {"GEVENT_LOOP": "libuv-cffi"},
    ("eventlet", "asyncio-patched"): {"EVENTLET_HUB": "asyncio"},
}  # beside the libraries' default loops


def main(name: str, mode: str, *arguments: str) -> int:
    """Patch first, as a program does, then load pytest and the tested packages."""
    patched = mode.endswith("patched")
    os.environ.update(OTHER_LOOPS.get((name, mode), {}))
    if patched:
        exec(MONKEY[name])
    import pytest

    from tests.green.plugin import GreenThreads

    return pytest.main([*arguments], plugins=[GreenThreads(name, patched=patched)])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
