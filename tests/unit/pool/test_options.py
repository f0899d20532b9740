"""The options that type checkers see are those of the pool."""

from inspect import signature

from greenpg.pool import ConnectionPool
from greenpg.pool._options import Options


def test_options_are_those_of_the_pool():
    seen = {name: hint.__forward_arg__ for name, hint in Options.__annotations__.items()}

    taken = {name: one.annotation for name, one in signature(ConnectionPool).parameters.items()}

    del taken["conninfo"], taken["driver"]
    assert seen == taken
