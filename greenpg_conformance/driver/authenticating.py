"""Who may connect: TLS, SCRAM, .pgpass, what is final and what is not, and no password shown."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager
from io import StringIO
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import psycopg2
from psycopg2 import OperationalError
from psycopg2 import extensions as ext

import greenpg
from greenpg_conformance.harness.context import Context
from greenpg_conformance.harness.tests import limit, raises

from ._secured import NAME, PASSWORD, Secured, secured
from .connecting import Resolver

HERE: Final = "127.0.0.1"
WRONG: Final = "wr0ng-Wort"
NOWHERE: Final = {"user": "postgres", "dbname": "nowhere"}
NAMES: Final = (NAME, "other.greenpg.test")
HOSTS: Final = (HERE, NAME, f"{NAME},{HERE}")


@limit(60)
def test_tls_passwords_and_refusals(ctx: Context) -> None:
    with secured() as site:
        _verify_full(ctx, site)
        _password_file(ctx, site)
        _authentication_failure_is_final(ctx, site)
        _server_that_libpq_refuses_is_final(ctx, site)
        _texts_are_psycopg2s(ctx, site)
        _password_is_never_shown(ctx, site)


def _connect(ctx: Context, params: dict[str, Any], *names: str) -> Any:
    backend = Resolver(ctx.backend, {name: [HERE] for name in names})
    with ctx.heartbeat():
        return ctx.connect(
            ext.make_dsn(**{"application_name": ctx.name, **params}), backend=backend
        )


def _verify_full(ctx: Context, site: Secured) -> None:
    trusted = {"sslmode": "verify-full", "sslrootcert": str(site.authority)}
    trusted |= {"port": str(site.tls_port), "password": PASSWORD}
    for hosts in (NAME, f"{NAME},{NAME}", f"nobody.greenpg.test,{NAME}"):
        conn = _connect(ctx, site.dsn(host=hosts, **trusted), NAME)

        assert conn.info.ssl_in_use
        assert conn.info.host == NAME
        conn.close()
    for host in (HERE, "other.greenpg.test"):
        with raises(OperationalError, words="does not match host name"):
            _connect(ctx, site.dsn(host=host, **trusted), host)


def _password_file(ctx: Context, site: Secured) -> None:
    port = site.server.port
    with _file(f"{NAME}:{port}:*:*:{PASSWORD}\n*:*:*:*:{WRONG}\n") as path:
        for params in ({"host": NAME}, {"host": f"{NAME},{NAME}", "passfile": path}):
            with patch.dict(os.environ, {} if "passfile" in params else {"PGPASSFILE": path}):
                _connect(ctx, site.dsn(**params), NAME).close()
        with raises(OperationalError, words="password authentication failed"):
            _connect(ctx, site.dsn(host=HERE, passfile=path))


@contextmanager
def _file(text: str) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "pgpass")
        path.write_text(text)
        path.chmod(0o600)
        yield str(path)


def _authentication_failure_is_final(ctx: Context, site: Secured) -> None:
    """The next host is not tried; libpq does the same."""
    proxy = ctx.proxy()
    before = proxy.accepted()
    ports = f"{site.server.port},{proxy.port}"

    with raises(OperationalError, words="password authentication failed") as caught:
        _connect(ctx, site.dsn(host=f"{HERE},{HERE}", port=ports, password=WRONG))

    assert proxy.accepted() == before
    assert "28P01" not in str(caught.error)
    with raises(OperationalError, words='database "nowhere" does not exist'):
        _connect(ctx, site.dsn(host=f"{HERE},{HERE}", port=ports, **NOWHERE))
    assert proxy.accepted() == before


def _server_that_libpq_refuses_is_final(ctx: Context, site: Secured) -> None:
    """The next host would let us in; libpq does not try it, and neither does greenpg."""
    verified = {"sslmode": "verify-full", "sslrootcert": str(site.authority)}
    secured = {**verified, "port": str(site.tls_port), "password": PASSWORD}
    with raises(OperationalError, words="does not match host name") as caught:
        _connect(ctx, site.dsn(host=f"other.greenpg.test,{NAME}", **secured), *NAMES)
    assert str(caught.error).count("other.greenpg.test") == str(caught.error).count(NAME) + 1

    plain, tls = site.server.port, site.tls_port
    for options in (
        {"port": f"{plain},{tls}", "sslmode": "require"},
        {"require_auth": "md5"},
        {"target_session_attrs": "standby"},
        {"port": f"1,{plain}", "require_auth": "md5"},
        {"host": f"{site.server.directory},{HERE}", "requirepeer": "nobody"},
        {"host": f"{site.server.directory},{HERE}", "gssencmode": "require"},
    ):
        hosts = {"host": f"{HERE},{HERE}", "sslmode": "disable", "password": PASSWORD}
        params = site.dsn(**{**hosts, **options})
        with raises(OperationalError) as caught:
            _connect(ctx, params)
        assert str(caught.error) == _said_by_psycopg2(params), options


def _texts_are_psycopg2s(ctx: Context, site: Secured) -> None:
    """The blocking psycopg2 says the same, for one host and for several."""
    for host in (HERE, f"{HERE},{HERE}"):
        for options in ({"password": WRONG}, {}, NOWHERE, {"port": 1}):
            params: dict[str, Any] = site.dsn(host=host, sslmode="disable", **options)
            with raises(OperationalError) as caught:
                _connect(ctx, params)

            assert str(caught.error) == _said_by_psycopg2(params), host


def _said_by_psycopg2(params: dict[str, Any]) -> str:
    callback = ext.get_wait_callback()
    ext.set_wait_callback(None)
    try:
        with raises(OperationalError) as caught:
            psycopg2._psycopg._connect(ext.make_dsn(**params), None, False)  # type: ignore[no-untyped-call]  # a C function
    finally:
        ext.set_wait_callback(callback)
    return str(caught.error)


def _password_is_never_shown(ctx: Context, site: Secured) -> None:
    logged = StringIO()
    handler = logging.StreamHandler(logged)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        shown = "".join(_everything_shown(ctx, site))
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    assert "scrammed" in shown
    assert PASSWORD not in shown + logged.getvalue()


def _everything_shown(ctx: Context, site: Secured) -> Iterator[str]:
    """Yield what connections, errors and tracebacks say."""
    for host in HOSTS:
        params = site.dsn(host=host, password=PASSWORD)
        conn = _connect(ctx, params, NAME)
        yield f"{conn!r} {conn} {conn.dsn} {conn.cursor()!r} {conn.info.dsn_parameters}"
        with closing(conn), raises(greenpg.Error) as caught:
            conn.cursor().execute("select wrong from nowhere")
        yield _told(caught.error)
    for params in _bad(site):
        with raises(greenpg.Error) as caught:
            _connect(ctx, params, NAME)
        yield _told(caught.error)


def _told(error: BaseException) -> str:
    return "".join((repr(error), *traceback.format_exception(error)))


def _bad(site: Secured) -> Iterator[dict[str, Any]]:
    for host in HOSTS:
        for wrong in ({"dbname": "nowhere"}, {"user": "nobody"}, {"port": 1}, {"sslmode": "odd"}):
            yield site.dsn(host=host, password=PASSWORD, **wrong)
        yield site.dsn(host=host, password=PASSWORD, target_session_attrs="standby")
    yield site.dsn(host="nobody.greenpg.test", password=PASSWORD)


@limit(60)
def test_server_that_shuts_down_is_passed_over(ctx: Context) -> None:
    """It answers 57P03, as one that is starting up does."""
    proxy = ctx.proxy()
    with secured() as site, closing(greenpg.connect(site.server.dsn, backend="threads")) as guest:
        os.kill(site.server.pid, signal.SIGTERM)  # the guest keeps it from going
        alone = site.dsn(user="postgres")
        ctx.wait_until(lambda: "shutting down" in _refusal(ctx, alone), "it shuts down")
        other = {**ext.parse_dsn(ctx.dsn), "host": f"{HERE},{HERE}"}
        other["port"] = f"{site.server.port},{proxy.port}"
        other.pop("hostaddr", None)

        conn = _connect(ctx, other)

        assert conn.info.port == proxy.port
        assert "57P03" not in _refusal(ctx, alone)
        assert guest.closed == 0


def _refusal(ctx: Context, params: dict[str, Any]) -> str:
    try:
        _connect(ctx, params).close()
    except OperationalError as err:
        return str(err)
    return ""
