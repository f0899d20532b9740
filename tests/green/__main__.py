"""Runs pytest with each test in a green thread: `python -m tests.green gevent patched tests/db`."""

import sys
from typing import Final

MONKEY: Final = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}
MODES: Final = ("patched", "explicit")


def main(name: str, mode: str, *arguments: str) -> int:
    """Patch first, as a program does, then load pytest and what it tests."""
    if mode == "patched":
        exec(MONKEY[name])
    import pytest

    from tests.green.plugin import GreenThreads

    return pytest.main([*arguments], plugins=[GreenThreads(name, patched=mode == "patched")])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
