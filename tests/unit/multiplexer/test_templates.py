"""Placeholders as $1, $2...: only where a parameter means what a literal would."""

from __future__ import annotations

import psycopg2.extensions as ext
import pytest

from greenpg._protocol.parameters import UNKNOWN
from greenpg.multiplexer._templates import Template, may_be_prepared


def template_of(query, encoding="utf-8"):
    template = Template.of(query, encoding)
    assert template is not None
    return template


@pytest.mark.parametrize(
    ("query", "sql"),
    [
        ("select %s", b"select $1"),
        ("select %s, %s", b"select $1, $2"),
        ("select %(a)s + %(b)s - %(a)s", b"select $1 + $2 - $3"),
        ("insert into t values (%s, 'x')", b"insert into t values ($1, 'x')"),
        ("select '\u00e9', %s", "select '\u00e9', $1".encode()),
        ("select a from t where b = %s order by a limit %s", None),
        ("select a from t order by a limit 1", b"select a from t order by a limit 1"),
    ],
)
def test_placeholders_are_numbered(query, sql):
    expected = sql or query.encode().replace(b"%s", b"$1", 1).replace(b"%s", b"$2", 1)

    assert template_of(query).sql((UNKNOWN,) * query.count("%")) == expected


@pytest.mark.parametrize(
    "query",
    [
        "select a from t order by %s",
        "select a from t order by a, %s desc limit 1",
        "select count(*) from t group by %s",
        "select count(*) from t group by rollup (%s, a)",
        "select distinct on (%s) a from t",
        "select distinct on (a, (%s)) a from t",
        "select 5 %% %s",
        "select '%s', %s",
        "select /* %s */ %s",
        "select %s -- 100%",
        'select "%s", %s',
        "select $$%s$$, %s",
        "select %s, %(a)s",
        "select * from t_%s",
        "select 1%s",
        "select %s1",
        "select E%s",
        "select 'a'%s",
        "select %s'a'",
    ],
)
def test_others_are_left_to_psycopg2(query):
    assert Template.of(query, "utf-8") is None


def test_names_are_taken_from_a_mapping():
    template = template_of("select %(one)s, %(Two)s, %(one)s")

    assert template.encoded({"one": 1, "Two": "x", "more": 2}) == ((23, 0, 23), [b"1", b"x", b"1"])
    assert template.encoded({"one": 1}) is None
    assert template.encoded((1, 2, 3)) is None


@pytest.mark.parametrize(
    "values",
    [(), (1,), (1, 2, 3), "ab", {"a": 1}, iter((1, 2)), (1, [2]), (1, "\0"), (1, object())],
)
def test_values_without_a_plain_form_are_left_to_psycopg2(values):
    assert template_of("select %s, %s").encoded(values) is None


def test_text_that_the_encoding_lacks_is_left_to_psycopg2():
    assert template_of("select %s", "latin-1").encoded(("\u20ac",)) is None


def test_adapter_that_was_registered_later_counts(monkeypatch):
    template = template_of("select %s")
    assert template.encoded((1,)) == ((23,), [b"1"])

    monkeypatch.setitem(ext.adapters, (int, ext.ISQLQuote), lambda value: ext.AsIs("7"))

    assert template.encoded((1,)) is None


@pytest.mark.parametrize(
    ("query", "may"),
    [
        ("select 1", True),
        (" -- x\n/* y */ (SELECT 1) union select 2", True),
        ("with a as (select 1) insert into t select * from a", True),
        ("values (1)", True),
        ("create table t (a int default %s)", False),
        ("explain select %s", False),
        ("%s", False),
        ("select $1", False),
        ("", False),
    ],
)
def test_only_what_is_planned_is_prepared(query, may):
    assert may_be_prepared(query) is may
