"""The options that type checkers see are those of the pool, and impossible ones are refused."""

from inspect import signature
from typing import Any

import pytest

from greenpg.multiplexer import Multiplexer
from greenpg.pool import ConnectionPool
from greenpg.pool._options import Options


def make(**options: Any) -> ConnectionPool[Any]:
    return ConnectionPool("dbname=app", **options)


def test_options_are_those_of_the_pool():
    seen = {name: hint.__forward_arg__ for name, hint in Options.__annotations__.items()}

    taken = {name: one.annotation for name, one in signature(ConnectionPool).parameters.items()}

    del taken["conninfo"], taken["driver"]
    assert seen == taken


@pytest.mark.parametrize(
    "name",
    [
        "min_size", "max_size", "timeout", "max_waiting", "max_lifetime", "max_idle", "max_uses",
        "reconnect_timeout", "num_workers", "warn_held",
    ],
)  # fmt: skip
def test_text_for_a_number_is_refused_at_once(name):
    with pytest.raises(TypeError, match=f"{name}='9': give a (whole )?number"):
        make(**{name: "9"})


@pytest.mark.parametrize("name", ["timeout", "max_lifetime", "max_idle", "warn_held"])
def test_none_does_not_mean_no_limit(name):
    with pytest.raises(TypeError, match=f"{name}=None: .*'inf'"):
        make(**{name: None})


@pytest.mark.parametrize("name", ["max_waiting", "max_idle", "min_size", "num_workers"])
def test_impossible_number_is_refused_at_once(name):
    with pytest.raises(ValueError, match=f"{name}=-1: give at least [01]"):
        make(**{name: -1})


@pytest.mark.parametrize("name", ["max_waiting", "max_idle", "max_uses", "warn_held"])
def test_no_number_is_refused_at_once(name):
    with pytest.raises(ValueError, match=f"{name}=nan: give at least [01]"):
        make(**{name: float("nan")})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2.5])
@pytest.mark.parametrize("name", ["min_size", "max_size", "num_workers"])
def test_count_that_is_not_whole_is_refused_at_once(name, value):
    with pytest.raises(TypeError, match=f"{name}={value}: give a whole number"):
        make(**{name: value})


def test_max_size_below_the_default_of_min_size_names_both():
    with pytest.raises(ValueError, match="max_size=2 is below min_size=4; set both"):
        ConnectionPool("dbname=app", max_size=2)


@pytest.mark.parametrize(
    "name",
    [
        "configure", "check", "reconnect_failed", "on_acquire", "on_release", "on_connect",
        "on_discard",
    ],
)  # fmt: skip
def test_hook_that_cannot_be_called_is_refused_at_once(name):
    with pytest.raises(TypeError, match=f"{name}=True: give a function"):
        make(**{name: True})


def test_unknown_holder_is_refused():
    with pytest.raises(ValueError, match="holder='stak': give 'line' or 'stack'"):
        make(holder="stak")


def test_multiplexer_refuses_the_driver_that_it_lacks():
    with pytest.raises(ValueError, match="driver='psycopg': a multiplexer uses psycopg2"):
        Multiplexer("dbname=app", driver="psycopg")
