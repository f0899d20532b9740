"""What a statement would do to its session: neither comments nor quotes hide or feign it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenpg.multiplexer._scan import is_open, refusal

TOUCHING = [
    "begin", "start transaction", "commit", "end", "rollback", "abort", "savepoint a",
    "release a", "prepare p as select 1", "prepare transaction 'x'", "execute p", "deallocate p",
    "set a = 1", "set local a = 1", "reset all", "listen a", "unlisten *", "lock t", "load 'x'",
    "declare c cursor for select 1", "fetch c", "move c", "close c", "copy t from stdin",
    "discard all", "create temp table t (a int)", "create temporary view v as select 1",
    "create or replace local temp view v as select 1", "create global temporary sequence s",
    "select 1 into temp t", "select a into temporary table t from b", "explain execute p",
    "with x as (select 1) select * into local temp t from x", "create table pg_temp.t (a int)",
    'create table "pg_temp".t (a int)', "select pg_advisory_lock(1)",
    "select \"pg_try_advisory_lock\" (1)", "select lastval()", "select currval('s')",
    "select set_config('a', 'b', false)", "explain (analyze, costs) execute p",
    'select U&"pg_advisory_lock"(1)', r'select u&"pg\005fadvisory_\+00006cock" (1)',
    "select U&\"pg!005fadvisory_lock\" uescape '!' (1)", r'create table U&"pg_tem\0070".t (a int)',
    "select U&\"pg_advisory_lock\"/**/uescape--\n'\\'(1)", "select setseed(0.5)",
    "select pg_backup_start('x')", "select * from pg_backup_stop()", "select pg_start_backup('x')",
    "select pg_replication_origin_session_setup('x')",
]  # fmt: skip
HARMLESS = [
    "select 1", "select 1;", "(select 1)", "values (1)", "table t", "insert into temp values (1)",
    "insert into temporary select 1", "update t set begin = 1", "delete from t", "notify a",
    "with x as (insert into t values (1) returning a) select * from x", "call p()",
    "with x as (insert into temp values (1) returning a) select a from x", "analyze t",
    "merge into temp using b on true when matched then do nothing", "do $$begin end$$",
    "create table t as select 1", "create table temp (a int)", "vacuum", "show all",
    "select pg_advisory_xact_lock(1)", "select set_config('a', 'b', true)", "explain select 1",
    "commit prepared 'x'", "rollback prepared 'x'", "select 'begin'", 'select "begin" from t',
    "select $$; begin$$", "select $a$ $$ ; begin $a$", r"select e'\'; begin'", "select temp from t",
    "create rule r as on insert to t do also (delete from a; delete from b)",
    "create function f() returns int begin atomic select 1; select case when true then 1 end; end",
    "create function f() returns int language sql set search_path = a as 'select 1'",
    "select a$b$, c$b$ from t", "select 1 - -1", "select U&'begin'", "grant select on t to a",
    r'select U&"pg\\005fadvisory_lock"(1)', "select U&\"a!0\" uescape '!', b from t",
    "", " ", "--x", "/* x */", ";", "(", r'select U&"d\+ffffff"',
    "select U&\"a\" uescape", "select u & \"pg_advisory_lock\" from t",
]  # fmt: skip
SPACE = st.sampled_from(
    [" ", "\n", "\t", "\f", "\r\n", "/**/", "/* ; begin */", "--; begin\n", "--\r"]
)
COMMENT = st.recursive(
    st.text("ab'\"$;%-", max_size=5),
    lambda inner: st.lists(inner, max_size=3).map(lambda parts: "/*" + " ".join(parts) + "*/"),
)
GAP = st.lists(SPACE | COMMENT.map(lambda text: f"/*{text}*/"), min_size=1, max_size=4).map("".join)
WORDS = st.text("abe;'\"\\$ \n-/*", max_size=12)
QUOTED = st.one_of(
    WORDS.map(lambda text: "'" + text.replace("'", "''") + "'"),
    WORDS.map(lambda text: "e'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"),
    WORDS.map(lambda text: '"a' + text.replace('"', '""') + '"'),
    WORDS.map(lambda text: f"$q$ {text} $q$"),
    WORDS.map(lambda text: f"$$ {text.replace('$', '')} $$"),
)


@pytest.mark.parametrize("statement", TOUCHING)
def test_what_touches_the_session_is_refused(statement):
    assert refusal(statement)
    assert '"' in statement or refusal(statement.upper())


@pytest.mark.parametrize("statement", HARMLESS)
def test_other_statements_pass(statement):
    assert refusal(statement) is None


@pytest.mark.parametrize("statement", ["\0", "select '\0'"])
def test_zero_characters_are_refused(statement):
    assert refusal(statement)


@given(st.sampled_from(TOUCHING), GAP, GAP, st.sampled_from(["", ";", ";;"]))
def test_comments_and_semicolons_hide_nothing(statement, before, between, end):
    spaced = statement.replace(" ", between) if "'" not in statement else statement

    assert refusal(before + end + before + spaced + before + end)


@given(st.lists(QUOTED, max_size=4), GAP)
def test_quotes_and_comments_feign_nothing(quoted, gap):
    text = f"select{gap}" + f"{gap},{gap}".join(quoted)

    assert refusal(text) is None, text


@given(st.lists(QUOTED, max_size=3), GAP, st.sampled_from(TOUCHING))
def test_second_statement_is_found_behind_quotes(quoted, gap, second):
    text = f"select{gap}" + f"{gap},{gap}".join(quoted) + f"{gap};{gap}{second}"

    assert refusal(text), text


@given(st.lists(QUOTED, max_size=3), GAP)
def test_session_function_is_found_behind_quotes(quoted, gap):
    text = f"select{gap}" + f"{gap},{gap}".join([*quoted, f"pg_advisory_lock{gap}(1)"])

    assert refusal(text), text


@given(st.text())
def test_any_text_is_answered(text):
    assert refusal(text) is None or refusal(text)


def test_strings_that_go_on_in_the_next_line_keep_their_escapes():
    assert refusal("select e'a' -- b\n '\\'; begin'") is None
    assert refusal("select 'a'\n '\\'; begin")


@pytest.mark.parametrize(
    "query",
    [
        "%s", " %(a)s", "/* %s */ select 1", "(%s)", "--%s\nselect 1", "select %s /* %s */",
        "select '%s'", 'select "%(a)s"', "select $$%s$$", "select %.1s", "select '%%%s'",
    ],
)  # fmt: skip
def test_parameter_at_the_beginning_or_in_quotes_leaves_the_command_open(query):
    assert is_open(query)


@pytest.mark.parametrize("query", ["select pg_advisory_lock%s", "select set_config %(a)s"])
def test_arguments_of_a_session_function_may_be_a_tuple(query):
    assert refusal(query)


@pytest.mark.parametrize(
    "query", ["select %s", "(select %(a)s)", "select 5 %% %s", "select '5 %%', %s", "select 1"]
)
def test_other_parameters_leave_nothing_open(query):
    assert not is_open(query)
