"""What a statement would do to its session, as far as its text shows.

The words of a statement are found as PostgreSQL's own scanner finds them (src/backend/parser,
scan.l), with `standard_conforming_strings` on. What is unknown here passes: the server reports a
mistake better, and a line reads the command's tag as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

_SPACE: Final = r"[ \t\n\r\f\v]"
_NEXT_LINE: Final = rf"[ \t\f\v]*(?:--[^\n\r]*)?[\n\r](?:{_SPACE}|--[^\n\r]*[\n\r])*"
_ESCAPED: Final = r"'[^'\\]*(?:(?:\\.|'')[^'\\]*)*'"
_LETTER: Final = r"A-Za-z_\x80-\U0010ffff"
_TOKEN: Final = re.compile(
    rf"""(?P<space>{_SPACE}+|--[^\n\r]*)
    |(?P<comment>/\*)
    |(?P<text>[eE]{_ESCAPED}(?:{_NEXT_LINE}{_ESCAPED})*|'[^']*(?:''[^']*)*')
    |(?P<dollar>\$(?:[{_LETTER}][{_LETTER}0-9]*)?\$)
    |(?P<name>(?:[uU]&)?"[^"]*(?:""[^"]*)*")
    |(?P<word>[{_LETTER}][{_LETTER}0-9$]*)
    |(?P<mark>%(?:\([^)]*\))?s)
    |(?P<number>[0-9]+)
    |(?P<sign>.)""",
    re.S | re.X,
)
_ESCAPE: Final = r"(%s)(?:([0-9a-fA-F]{4})|\+([0-9a-fA-F]{6})|(\1))"
_COMMENT: Final = re.compile(r"/\*|\*/")
_TEMPORARY_SCHEMA: Final = re.compile(r"pg_temp(_\d+)?\Z")

_COMMANDS: Final = frozenset((
    "abort", "begin", "close", "commit", "copy", "deallocate", "declare", "discard", "end",
    "execute", "fetch", "listen", "load", "lock", "move", "prepare", "release", "reset",
    "rollback", "savepoint", "set", "start", "unlisten",
))  # fmt: skip
_FUNCTIONS: Final = frozenset((
    "currval", "lastval", "pg_advisory_lock", "pg_advisory_lock_shared", "pg_advisory_unlock",
    "pg_advisory_unlock_all", "pg_advisory_unlock_shared", "pg_backup_start", "pg_backup_stop",
    "pg_replication_origin_session_progress", "pg_replication_origin_session_reset",
    "pg_replication_origin_session_setup", "pg_start_backup", "pg_stop_backup",
    "pg_try_advisory_lock", "pg_try_advisory_lock_shared", "setseed",
))  # fmt: skip
TAGS: Final = frozenset(
    b"BEGIN,CLOSE CURSOR,CLOSE CURSOR ALL,DEALLOCATE,DEALLOCATE ALL,DECLARE CURSOR,DISCARD ALL,"
    b"DISCARD PLANS,DISCARD SEQUENCES,DISCARD TEMP,LISTEN,LOAD,LOCK TABLE,PREPARE,RESET,SET,"
    b"SET CONSTRAINTS,START TRANSACTION,UNLISTEN".split(b",")
)  # of commands that change the session, by the server's word: see `Line`


class Token(NamedTuple):
    """One word, name, string, placeholder or sign of a statement."""

    kind: str
    value: str


def refusal(statement: str) -> str | None:
    """Return why a statement may not run in a session that others use; None if it may."""
    if "\0" in statement:
        return "a statement cannot contain a zero character"
    tokens = list(_unescaped([token for token, _ in tokens_of(statement)]))
    first = _first(tokens, 0)
    if first == len(tokens):
        return None  # an error of the server
    if _ends_early(tokens[first:]):
        return "several statements in one string cannot be told apart; execute them one by one"
    return _command(tokens, first) or _part(tokens)


def is_open(query: str) -> bool:
    """Return True if literals as parameters may decide which command it is.

    That is where one stands at its beginning, or in a comment or a string, which it might end.
    """
    query = query.replace("%%", "  ")
    tokens = [token for token, _ in tokens_of(query)]
    first = tokens[_first(tokens, 0) :][:1]
    places = sum(token.kind == "mark" for token in tokens)
    return places < query.count("%") or any(token.kind == "mark" for token in first)


def tokens_of(statement: str) -> Iterator[tuple[Token, int]]:
    """Yield each token, and where it ends."""
    position, end = 0, len(statement)
    while position < end:
        found = _TOKEN.match(statement, position)
        if found is None:
            return
        kind, value, position = str(found.lastgroup), found[0], found.end()
        if kind == "comment":
            position = _after_comment(statement, position)
        elif kind == "dollar":
            close = statement.find(value, position)
            position = end if close < 0 else close + len(value)
            yield Token("text", ""), position
        elif kind == "name":
            yield Token("name" if value[0] == '"' else "escaped", _unquoted(value)), position
        elif kind != "space":
            yield Token(kind, value.lower() if value.isascii() else value), position


def _unquoted(name: str) -> str:
    return name[name.index('"') + 1 : -1].replace('""', '"')


def _unescaped(tokens: list[Token]) -> Iterator[Token]:
    """Yield the tokens, with names such as U&"d!0061t" UESCAPE '!' as what they mean."""
    place = 0
    while place < len(tokens):
        kind, value = tokens[place]
        place += 1
        if kind != "escaped":
            yield Token(kind, value)
            continue
        escape = "\\"
        if tokens[place : place + 1] == [Token("word", "uescape")]:
            escape = "".join(token.value for token in tokens[place + 1 : place + 2])[1:2]
            place += 2
        yield Token("name", re.sub(_ESCAPE % re.escape(escape), _character, value))


def _character(found: re.Match[str]) -> str:
    """Return what an escape stands for; the server refuses one that stands for nothing."""
    code = int(found[2] or found[3] or "0", 16)
    return found[1] if found[4] else chr(min(code, 0x10FFFF))


def _after_comment(statement: str, position: int) -> int:
    """Return where a comment ends that has begun before `position`; comments are nested."""
    depth = 1
    for found in _COMMENT.finditer(statement, position):
        depth += 1 if found[0] == "/*" else -1
        if not depth:
            return found.end()
    return len(statement)


def _first(tokens: list[Token], start: int) -> int:
    """Return the place of the first token that says something."""
    while (
        start < len(tokens) and tokens[start].value in ("(", ";") and tokens[start].kind == "sign"
    ):
        start += 1
    return start


def _ends_early(tokens: list[Token]) -> bool:
    """Return True if a semicolon is followed by more.

    Those within parentheses (CREATE RULE) and within BEGIN ATOMIC ... END are parts.
    """
    depth = block = 0
    for place, (kind, value) in enumerate(tokens):
        if kind == "sign":
            depth += {"(": 1, ")": -1}.get(value, 0)
            if value == ";" and depth <= 0 and not block:
                return _first(tokens, place) < len(tokens)
        elif kind == "word":
            if block:
                block += {"case": 1, "end": -1}.get(value, 0)
            elif value == "begin" and tokens[0].value == "create":
                block = int(tokens[place + 1 : place + 2] == [Token("word", "atomic")])
    return False


def _command(tokens: list[Token], first: int) -> str | None:
    if tokens[first] == Token("word", "explain"):
        first = _explained(tokens, first + 1)
    words = [token.value if token.kind == "word" else "" for token in tokens[first : first + 2]]
    if words[0] not in _COMMANDS or words in (["commit", "prepared"], ["rollback", "prepared"]):
        return None
    return f"{words[0].upper()} changes the session"


def _explained(tokens: list[Token], place: int) -> int:
    """Return the place of the statement that an EXPLAIN explains."""
    if tokens[place : place + 1] == [Token("sign", "(")]:
        place = _closing(tokens, place) + 1
    while place < len(tokens) and tokens[place].value in ("analyze", "analyse", "verbose"):
        place += 1
    return min(place, len(tokens) - 1)


def _closing(tokens: list[Token], place: int) -> int:
    """Return the place of the parenthesis that closes the one at `place`, or of the last token."""
    depth = 0
    for end in range(place, len(tokens)):
        if tokens[end].kind == "sign":
            depth += {"(": 1, ")": -1}.get(tokens[end].value, 0)
            if not depth:
                return end
    return len(tokens) - 1


def _part(tokens: list[Token]) -> str | None:
    """Return what a part of the statement would do to the session."""
    for place, (kind, value) in enumerate(tokens):
        if kind not in ("word", "name"):
            continue
        follows, called = "", False
        if place + 1 < len(tokens):
            follows = tokens[place + 1].value
            called = follows == "(" or tokens[place + 1].kind == "mark"  # of a tuple
        if kind == "word" and value in ("temp", "temporary") and _makes(tokens, place):
            return "a temporary table belongs to the session"
        if follows == "." and _TEMPORARY_SCHEMA.match(value):
            return f"{value} belongs to the session"
        if called and value in _FUNCTIONS:
            return f"{value}() depends on the session"
        if called and value == "set_config" and not _is_local(tokens, place + 1):
            return "set_config() changes the session, unless its third argument is true"
    return None


def _makes(tokens: list[Token], place: int) -> bool:
    """Return True if TEMP follows CREATE, or INTO in a SELECT: else it is a table's name."""
    before = [token.value if token.kind == "word" else "" for token in tokens[:place][-5:]]
    while before and before[-1] in ("local", "global"):
        before.pop()
    if before[-2:] == ["or", "replace"]:
        del before[-2:]
    if before[-1:] == ["into"]:
        return before[-2:-1] not in (["insert"], ["merge"])
    return before[-1:] == ["create"]


def _is_local(tokens: list[Token], place: int) -> bool:
    return tokens[_closing(tokens, place) - 1] == Token("word", "true")
