"""The threads backend uses the real primitives even where everything is patched."""

from __future__ import annotations

import sys
import time

import pytest

from greenpg.threads import pristine
from tests import programs

MONKEY = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}
CHECK = """
import os
from greenpg.threads import backend, pristine
ran = []
{spawn}
backend.sleep(0.05)
event = backend.event()
backend.spawn(lambda: (backend.sleep(0.05), event.set()))
assert event.wait(5)
waiter = backend.waiter()
reading, writing = os.pipe()
assert waiter.wait(reading, 1, 0.05) == 0
pristine("posix").write(writing, b"!")
assert waiter.wait(reading, 1, 5) == 1
waiter.close()
assert backend.in_thread(lambda: 42) == 42
print(ran)
"""
SPAWN = {
    "gevent": "import gevent; gevent.spawn(ran.append, 'a green task ran meanwhile')",
    "eventlet": "import eventlet; eventlet.spawn(ran.append, 'a green task ran meanwhile')",
}


@pytest.mark.parametrize("library", MONKEY)
@pytest.mark.parametrize("first", ["monkey-patch", "greenpg"])
def test_threads_block_plainly_in_a_patched_process(library, first):
    parts = [MONKEY[library], "import greenpg.threads"]
    if first == "greenpg":
        parts.reverse()

    code = "\n".join([*parts, CHECK.format(spawn=SPAWN[library])])
    done = programs.run(code)

    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("name", ["_thread", "time", "select", "posix"])
def test_pristine_module_is_a_copy_with_the_same_names(name):
    module = pristine(name)

    again = pristine(name)

    assert module is not again
    assert module is not sys.modules.get(name)
    assert module.__name__ == name
    assert {*vars(module)} >= {*vars(again)}


def test_patch_of_the_module_does_not_reach_the_copy(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)

    assert pristine("time").sleep is not time.sleep


def test_module_that_does_not_exist_is_an_import_error():
    with pytest.raises(ImportError, match="no_such_module"):
        pristine("no_such_module")
