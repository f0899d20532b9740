"""The end of a large object, and files and archives on top of one."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

import pytest

import greenpg
from greenpg import lobject
from greenpg._protocol.libpq import libpq
from tests.db.lobject.conftest import C_LOBJECT


def test_object_opened_for_reading_cannot_be_written(db, conn, lob):
    reader = conn.lobject(lob.oid)

    with pytest.raises(db.OperationalError, match="was not opened for writing"):
        reader.write(b"x")


USES = {
    "read": lambda lob: lob.read(),
    "write": lambda lob: lob.write(b"x"),
    "seek": lambda lob: lob.seek(0),
    "tell": lambda lob: lob.tell(),
    "truncate": lambda lob: lob.truncate(),
    "readinto": lambda lob: lob.readinto(bytearray(2)),
}


each_use = pytest.mark.parametrize("use", USES.values(), ids=USES)


@each_use
def test_closed_object_refuses(db, lob, use):
    lob.close()
    lob.close()

    with pytest.raises(db.InterfaceError, match=r"^lobject already closed$"):
        use(lob)


ENDS = {
    "commit": lambda conn: conn.commit(),
    "rollback": lambda conn: conn.rollback(),
    "reset": lambda conn: conn.reset(),
    "encoding": lambda conn: conn.set_client_encoding("LATIN1"),
    "isolation": lambda conn: conn.set_isolation_level(3),
}


@each_use
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_end_of_the_transaction_ends_the_object(db, conn, lob, end, use):
    end(conn)
    later = conn.lobject()

    with pytest.raises(db.ProgrammingError, match=r"^lobject isn't valid anymore$"):
        use(lob)

    lob.close()
    assert later.write(b"x") == 1


def test_savepoint_does_not_end_it(conn, lob):
    cur = conn.cursor()
    cur.execute("savepoint here")
    lob.write(b"x")
    cur.execute("release savepoint here")

    assert lob.write(b"x") == 1


def test_setting_the_same_encoding_does_not_end_it(conn, lob):
    conn.set_client_encoding(conn.encoding)

    assert lob.write(b"x") == 1


def test_autocommit_has_no_large_objects(db, conn, lob):
    conn.commit()
    conn.autocommit = True

    for use in [lambda: conn.lobject(), lambda: lob.read(), lambda: lob.export("/nowhere")]:
        with pytest.raises(db.ProgrammingError, match="can't use a lobject outside of transac"):
            use()
    lob.close()
    lob.unlink()


def test_two_phase_transaction(db, conn):
    conn.tpc_begin("greenpg test_lobject")
    lob = conn.lobject()
    conn.tpc_prepare()

    with pytest.raises(db.ProgrammingError, match="isn't valid anymore"):
        lob.read()
    with pytest.raises(db.ProgrammingError, match="with a prepared two-phase transaction"):
        conn.lobject()
    conn.tpc_rollback()


def test_closed_connection(db, conn, lob):
    conn.close()

    lob.close()
    assert lob.closed
    for use in [lambda: conn.lobject(), lob.unlink, lambda: lob.export("/nowhere")]:
        with pytest.raises(db.InterfaceError, match=r"^connection already closed$"):
            use()


def test_lost_connection(db, conn, lob, auto):
    auto.cursor().execute("select pg_terminate_backend(%s, 5000)", (conn.info.backend_pid,))

    with pytest.raises(db.OperationalError, match="terminating connection"):
        lob.write(b"x")

    assert conn.closed
    assert lob.closed


def test_unlink_removes_also_a_closed_and_an_outlived_one(db, conn):
    for end in (lambda lob: None, lambda lob: lob.close(), lambda lob: conn.commit()):
        lob = conn.lobject()
        end(lob)
        lob.unlink()
        with pytest.raises(db.OperationalError, match=f"large object {lob.oid} does not exist"):
            conn.lobject(lob.oid)
        conn.rollback()


def test_import_and_export(conn, tmp_path):
    data = bytes(range(256)) * 2000
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(data)

    lob = conn.lobject(0, "rb", 0, str(source))
    lob.close()
    lob.export(str(copy))

    assert copy.read_bytes() == data
    assert conn.lobject(lob.oid, "rb").read() == data


def test_imported_object_stands_at_its_beginning(conn, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"some data")

    lob = conn.lobject(0, "rb", 0, str(source))

    assert (lob.mode, lob.tell(), lob.read()) == ("wb", 0, b"some data")


def test_unreadable_and_unwritable_files(db, conn, lob):
    with pytest.raises(db.OperationalError) as unread:
        conn.lobject(0, "r", 0, "/no/such/file")
    with pytest.raises(db.OperationalError) as unwritten:
        lob.export("/no/such/file")

    reason = 'could not open file "/no/such/file": No such file or directory\n'
    assert [str(unread.value), str(unwritten.value)] == [reason, reason]
    assert lob.write(b"x") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_full_disk_raises_libpqs_error(db, lob):
    lob.write(b"x" * 100)

    with pytest.raises(db.OperationalError, match=r"could not write to file .* No space left"):
        lob.export("/dev/full")

    assert lob.tell() == 100


def test_class_as_factory_has_the_green_class_under_it(conn):
    class Shouting(C_LOBJECT):
        def write(self, data):
            return super().write(data.upper())

    lob = conn.lobject(lobject_factory=Shouting)
    lob.write("loud")
    lob.seek(0)

    assert isinstance(lob, Shouting)
    assert isinstance(lob, lobject.Lobject)
    assert lob.read() == "LOUD"


def test_function_as_factory_gets_psycopg2s_arguments(conn, tmp_path):
    calls = []

    def factory(*args):
        calls.append(args[1:])
        return greenpg.extensions.lobject(*args)

    conn.lobject(lobject_factory=factory)
    conn.lobject(0, "r", 0, str(Path(__file__)), factory)

    assert calls == [(0, "", 0), (0, "r", 0, __file__)]


def test_factory_that_makes_something_else_is_refused(conn):
    with pytest.raises(TypeError, match=r"must be subclass of psycopg2.extensions.lobject"):
        conn.lobject(lobject_factory=lambda *args: object())


def test_constructor_requires_a_connection():
    with pytest.raises(TypeError, match="must be a greenpg connection, not list"):
        greenpg.extensions.lobject([])


def test_subclass_that_forgets_its_base_is_closed(db, conn):
    class Forgetful(C_LOBJECT):
        def __init__(self, *args):
            pass

    lob = conn.lobject(lobject_factory=Forgetful)

    assert lob.closed
    with pytest.raises(db.InterfaceError, match="lobject already closed"):
        lob.read()


def test_with_block_closes_it(conn):
    with conn.lobject() as lob:
        lob.write(b"x")

    assert lob.closed


def test_with_block_raises_its_own_error(db, conn):
    with pytest.raises(db.errors.SyntaxError), conn.lobject():
        conn.cursor().execute("nonsense")


def test_shutil_copies_from_and_to_it(conn):
    target = conn.lobject(0, "wb")

    shutil.copyfileobj(io.BytesIO(b"data" * 100_000), target)
    target.seek(0)
    back = io.BytesIO()
    shutil.copyfileobj(target, back)

    assert back.getvalue() == b"data" * 100_000


def test_io_puts_buffers_and_lines_on_top(conn):
    lob = conn.lobject(0, "wb")
    with io.TextIOWrapper(io.BufferedRandom(lob), encoding="utf-8") as text:
        text.write("Zeile eins\nzwei \u2603\n")
        text.seek(0)
        lines = list(text)

    assert lines == ["Zeile eins\n", "zwei \u2603\n"]
    assert lob.closed


def test_tar_archive_in_a_large_object(conn):
    lob = conn.lobject(0, "wb")
    with tarfile.open(fileobj=lob, mode="w") as archive:
        archive.add(__file__, "test.py")
    lob.seek(0)

    with tarfile.open(fileobj=lob) as archive:
        member = archive.extractfile("test.py")
        content = member.read() if member else b""

    assert content == Path(__file__).read_bytes()


def test_file_methods_return_the_mode(conn, lob):
    reader = conn.lobject(lob.oid, "r")
    none = conn.lobject(lob.oid, "n")

    assert [one.readable() for one in (lob, reader, none)] == [True, True, False]
    assert [one.writable() for one in (lob, reader, none)] == [True, False, False]
    assert lob.seekable()


def test_repr_is_psycopg2s(lob):
    assert repr(lob) == f"<lobject object at {id(lob):#x}; closed: 0>"


def test_unreachable_libpq_is_reported(conn, monkeypatch):
    monkeypatch.setattr(libpq, "_dll", None)
    monkeypatch.setattr(libpq, "_reason", "psycopg2's libpq cannot be reached: a test")

    with pytest.raises(greenpg.errors.FeatureUnavailable, match="a test; install psycopg2-binary"):
        conn.lobject()

    assert not conn.closed


def test_another_wait_callback_gets_psycopg2s_refusal(db, conn, monkeypatch):
    greenpg.set_wait_callback(lambda conn: greenpg.extras.wait_select(conn))
    try:
        with pytest.raises(db.ProgrammingError, match="lobject cannot be used with an asynchr"):
            conn.lobject()
    finally:
        greenpg.set_wait_callback(None)


def test_asynchronous_connection_gets_psycopg2s_refusal(db, connect):
    conn = connect(async_=1)
    greenpg.wait(conn)

    with pytest.raises(db.ProgrammingError, match="lobject cannot be used in asynchronous mode"):
        conn.lobject()
