"""The doctor: its table, its verdict, and that it hides passwords."""

import re
import sys

import pytest

from greenpg.cli import main
from greenpg.doctor import Row, _drivers, here
from greenpg.doctor._table import Table
from greenpg.doctor.examination import _part
from greenpg.doctor.rows import Secrets, is_green

SECRET, QUOTED = "hunt@er2", "hunt%40er2"
MALFORMED = ("host=x password=hunter secret_ter2", "postgresql://joe:hun%ter2@nowhere.invalid/db")


@pytest.mark.parametrize("width", [60, 80, 140])
def test_table_fits_its_screen_and_shows_every_remedy(width):
    rows = [
        Row("server", "PostgreSQL", "good", "16 [at] home"),
        Row("server", "timeouts", "note", "none " * 20, "set them"),
        Row("gevent", "slow queries", "bad", "stood still", "look above"),
    ]

    lines = [*Table(width).lines(rows)]

    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert all(word in text for word in ("16 [at] home", "-> set them", "BAD", "-> look above"))


@pytest.mark.parametrize(
    ("state", "green", "verdict"),
    [("good", True, "green"), ("note", True, "green"), ("bad", False, "not green: a: b")],
)
def test_only_a_bad_row_is_not_green(state, green, verdict):
    rows = [Row("a", "b", state, "c")]

    assert is_green(rows) is green
    assert [*Table(80).lines(rows)][-1] == verdict


def test_colours_take_no_room():
    rows = [Row("server", "timeouts", "bad", "none " * 20, "set them " * 20)]

    plain, coloured = ([*Table(60, colours=colours).lines(rows)] for colours in (False, True))

    assert [re.sub("\x1b.*?m", "", line) for line in coloured] == plain
    assert coloured != plain


@pytest.mark.parametrize(
    "given",
    [f"host=h password={SECRET}", f"postgresql://me:{QUOTED}@h/db", f"sslpassword={SECRET}"],
)
def test_secrets_are_hidden_as_written_and_as_quoted(given):
    row = Secrets(given).hide(Row("a", "b", "bad", f"x {SECRET} y {QUOTED}", f"try {SECRET}"))

    assert (row.fact, row.remedy) == ("x *** y ***", "try ***")


def test_password_of_the_environment_is_hidden(monkeypatch):
    monkeypatch.setenv("PGPASSWORD", SECRET)

    row = Secrets(None).hide(Row("a", "b", "fact", SECRET))

    assert row.fact == "***"


@pytest.mark.parametrize(
    "words",
    [
        [f"postgres//me:{QUOTED}@host/db"],
        [f"host=h {SECRET}"],
        ["--dsn", f"host=h {SECRET}"],
        ["--backend", "no_such"],
        ["--limit", "long"],
    ],
)
def test_wrong_words_are_refused_without_quoting_a_password(words, capsys):
    with pytest.raises(SystemExit) as end:
        main(["doctor", *words])

    said = capsys.readouterr()
    assert end.value.code == 2
    assert "usage: greenpg doctor" in said.err
    assert not any(text in said.out + said.err for text in (SECRET, QUOTED))


@pytest.mark.parametrize("given", MALFORMED)
def test_malformed_dsn_of_the_environment_is_not_quoted(given, monkeypatch, capsys):
    monkeypatch.setenv("GREENPG_DSN", given)

    assert main(["doctor", "--backend", "threads", "--json"]) == 1

    said = capsys.readouterr().out
    assert "DSN is neither" in said
    assert "ter2" not in said


@pytest.mark.parametrize("given", MALFORMED)
@pytest.mark.parametrize("end", ["import", "end"])
def test_program_with_a_malformed_dsn_is_not_quoted(given, end, tmp_path, monkeypatch):
    prelude = f"import psycopg2; psycopg2.connect({given!r})"
    (tmp_path / "broken_program.py").write_text(prelude)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    first = prelude if end == "end" else ""

    rows = [*_part("program", 20, first, app="broken_program", dsn=None, reachable=False)]

    found = next(row for row in rows if row.name == end)
    assert found.state == "bad"
    assert "Error" in found.fact
    assert not any("ter2" in row.fact + row.remedy for row in rows)


def test_rows_of_this_process_are_those_of_a_process_that_nobody_patched(monkeypatch):
    for name in ("psycopg", "sqlalchemy"):  # which other tests import
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(_drivers, "_importers", lambda driver: [])

    found = {row.name: row for row in here()}

    assert [*found] == ["monkey-patching", "backend", "wait callback", "psycopg2.connect"]
    assert found["monkey-patching"].fact == "none"
