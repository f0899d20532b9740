"""Large objects: psycopg2's behaviour, and their use as files."""

from __future__ import annotations

import io
import random

import psycopg2
import psycopg2.extensions as ext
import pytest

from greenpg import lobject

GIGABYTE = 1 << 30


def holding(conn, data):
    """A large object of this content, opened for reading bytes."""
    with conn.lobject() as made:
        made.write(data)
    return conn.lobject(made.oid, "rb")


@pytest.mark.parametrize(
    ("given", "shown"),
    [("", "rt"), (None, "rt"), ("r", "rt"), ("w", "wt"), ("rw", "rwt"), ("rwb", "rwb"),
     ("wb", "wb"), ("b", "rb"), ("t", "rt"), ("n", "n"), ("nb", "n")],
)  # fmt: skip
def test_mode_of_an_existing_object(conn, lob, given, shown):
    opened = conn.lobject(lob.oid, given)

    assert opened.mode == shown
    assert opened.oid == lob.oid
    assert opened.closed is (shown == "n")


@pytest.mark.parametrize(("given", "shown"), [("", "wt"), ("rb", "wb"), ("rwt", "wt"), ("n", "wt")])
def test_created_object_is_open_for_writing(conn, given, shown):
    assert conn.lobject(0, given).mode == shown


@pytest.mark.parametrize("mode", ["x", "rx", "wr", "rtb", "r ", "R"])
def test_bad_mode_is_a_value_error(conn, mode):
    with pytest.raises(ValueError, match=f"bad mode for lobject: '{mode}'"):
        conn.lobject(0, mode)


def test_new_oid_is_used(conn, lob):
    lob.unlink()

    assert conn.lobject(new_oid=lob.oid).oid == lob.oid


def test_used_new_oid_is_refused_with_the_servers_text(db, conn, lob):
    with pytest.raises(db.OperationalError, match=r"^ERROR:  duplicate key value"):
        conn.lobject(new_oid=lob.oid)

    conn.rollback()
    assert conn.lobject().oid


def test_missing_object_is_an_operational_error_with_the_servers_as_its_cause(db, conn):
    with pytest.raises(db.OperationalError) as caught:
        conn.lobject(0xFFFFFFFE)

    assert str(caught.value) == "ERROR:  large object 4294967294 does not exist\n"
    assert caught.value.__cause__.diag.sqlstate == "42704"


def test_opening_begins_a_transaction(conn):
    conn.lobject()

    assert conn.status == ext.STATUS_BEGIN


def test_row_and_cursor_factories_do_not_matter(conn):
    ext.register_type(ext.new_type((20, 23, 26), "TEXTUAL", lambda text, cur: f"<{text!r}>"), conn)
    conn.cursor_factory = psycopg2.extras.RealDictCursor

    made = conn.lobject()

    assert made.write(b"data") == 4


def test_text_and_bytes_are_written_and_read(conn, lob):
    written = [lob.write("Schnee \u2603"), lob.write(b" und"), lob.write(bytearray(b" Eis"))]
    lob.seek(0)

    assert written == [10, 4, 4]
    assert lob.read(6) == "Schnee"
    assert conn.lobject(lob.oid, "rb").read() == "Schnee \u2603 und Eis".encode()


def test_text_is_in_the_connections_encoding(conn):
    conn.set_client_encoding("LATIN1")
    lob = conn.lobject()

    lob.write("h\xf6flich")

    assert conn.lobject(lob.oid, "b").read() == b"h\xf6flich"
    assert conn.lobject(lob.oid, "t").read() == "h\xf6flich"


def test_split_character_cannot_be_read_as_text(conn, lob):
    lob.write("\u2603")
    lob.seek(1)

    with pytest.raises(UnicodeDecodeError):
        lob.read()


def test_other_types_cannot_be_written(lob):
    with pytest.raises(TypeError, match=r"lobject.write requires a string; got int instead"):
        lob.write(3)


@pytest.mark.parametrize("size", [0, 1, lobject.PIECE, lobject.PIECE + 1, 3 * lobject.PIECE])
def test_any_size_comes_back_whole(conn, size):
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)

    stored = holding(conn, data)

    assert stored.read() == data
    assert stored.read() == b""
    stored.seek(0)
    assert [stored.read(size + 1), stored.tell()] == [data, size]


def test_seek_and_tell(lob):
    lob.write(b"some data")

    places = [lob.seek(5), lob.seek(2, 1), lob.seek(-4, 2), lob.tell()]

    assert places == [5, 7, 5, 5]
    assert lob.read() == "data"


def test_reading_ahead_shows_in_no_position(conn):
    content = random.Random(4).randbytes(1_000_000)
    lob, file = holding(conn, content), io.BytesIO(content)
    chance = random.Random(5)

    for _ in range(300):
        size = chance.choice((0, 1, 700, 40_000, 200_000, 300_000, -1))
        assert lob.read(size) == file.read(size)
        if chance.random() < 0.2:
            place = chance.choice(((chance.randrange(1_100_000), 0), (-5000, 2), (-file.tell(), 1)))
            assert lob.seek(*place) == file.seek(*place)
        assert lob.tell() == file.tell()


def test_overflow_of_a_position_keeps_what_was_read_ahead(conn):
    lob = holding(conn, b"0123456789")
    lob.read(1)
    lob.read(1)

    with pytest.raises(OverflowError):
        lob.seek(1 << 70)

    assert lob.read(2) == b"23"


def test_short_reads_that_follow_one_another_ask_the_server_rarely(conn, monkeypatch):
    lob = holding(conn, bytes(100_000))
    calls = []
    usual = lobject._call

    def counted(*args):
        calls.append(args)
        return usual(*args)

    monkeypatch.setattr(lobject, "_call", counted)

    total = sum(len(lob.read(100)) for _ in range(1000))

    assert total == 100_000
    assert len(calls) < 15


def test_writer_reads_nothing_ahead(conn):
    writer = conn.lobject(0, "wb")
    other = conn.lobject(writer.oid, "wb")
    writer.write(b"aaaaaaaa")
    writer.seek(0)
    writer.read(1)
    writer.read(1)

    other.write(b"bbbbbbbb")

    assert writer.read(2) == b"bb"


def test_failed_transaction_refuses_what_was_read_ahead(db, conn):
    lob = holding(conn, bytes(100))
    lob.read(10)
    lob.read(10)
    with pytest.raises(db.errors.SyntaxError):
        conn.cursor().execute("nonsense")

    with pytest.raises(db.OperationalError, match="current transaction is aborted"):
        lob.read(1)


def test_positions_beyond_two_gigabytes(lob):
    lob.truncate(3 * GIGABYTE)

    assert lob.seek(0, 2) == 3 * GIGABYTE
    assert lob.seek(5 * GIGABYTE) == 5 * GIGABYTE
    assert lob.tell() == 5 * GIGABYTE
    assert lob.read() == ""


@pytest.mark.parametrize(
    ("use", "error", "text"),
    [
        (lambda lob: lob.seek(-5), psycopg2.OperationalError, "invalid large object seek target"),
        (lambda lob: lob.seek(0, 9), psycopg2.OperationalError, "invalid whence setting: 9"),
        (lambda lob: lob.truncate(-1), psycopg2.OperationalError, "invalid large object trunc"),
        (lambda lob: lob.seek(1 << 70), OverflowError, "int too big"),
        (lambda lob: lob.seek("5"), TypeError, "cannot be interpreted as an integer"),
    ],
)
def test_bad_positions(lob, use, error, text):
    with pytest.raises(error, match=text):
        use(lob)


def test_truncate_cuts_and_extends(lob):
    lob.write(b"some data")

    lob.truncate(4)
    lob.truncate(6)

    lob.seek(0)
    assert lob.read() == "some\0\0"
    lob.truncate()
    lob.seek(0)
    assert lob.read() == ""
