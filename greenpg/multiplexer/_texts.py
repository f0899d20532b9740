"""What is known of the texts that were executed."""

from __future__ import annotations

import re
from typing import Any, Final

from greenpg._protocol.libpq import texts as text_array
from greenpg._protocol.prepared import Form

from ._scan import is_open, refusal
from ._templates import Template, may_be_prepared

KEPT: Final = 1000  # texts; where a program makes them one by one, most come only once
CHARACTERS: Final = 10_000_000  # of all texts that are kept
_LITERAL: Final = re.compile(r"'[^']*'|\b\d[\d.]*")


class Pace:
    """How long statements of one shape run: the seconds that the last one took."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class Text:
    """One text: why it is refused, what it is without parameters, and its prepared forms.

    `form` is the form without parameters, `template` that of the others; None until the text has
    been used often enough, or where there is none.
    """

    __slots__ = (
        "_forms", "form", "is_open", "may_be_prepared", "pace", "refusal", "sql", "template",
        "uses",
    )  # fmt: skip

    def __init__(self, query: str, pace: Pace) -> None:
        self.refusal = refusal(query)
        self.is_open = is_open(query)
        self.may_be_prepared = self.refusal is None and may_be_prepared(query)
        self.pace = pace
        self.sql: bytes | None = None
        self.uses = 0
        self.form: Form | None = None
        self.template: Template | None = None
        self._forms: dict[tuple[int, ...], Form] = {}

    def prepare(self, query: str, encoding: str) -> None:
        """Make its prepared forms."""
        self.may_be_prepared = False  # once
        self.form = Form(query.encode(encoding), ())
        self.template = Template.of(query, encoding) if "%" in query else None

    def prepared(self, vars: Any) -> tuple[Form, Any, int] | None:
        """Return the prepared form for some parameters, their values and the length of these.

        None if there is none.
        """
        encoded = None if self.template is None else self.template.encoded(vars)
        if self.template is None or encoded is None:
            return None
        types, values = encoded
        form = self._forms.get(types)
        if form is None:
            form = self._forms[types] = Form(self.template.sql(types), types)
        return form, text_array(values), sum(map(len, filter(None, values)))


class Texts(dict[str, Text]):
    """Texts by what they are, as far as they are kept."""

    def __init__(self, slow: float) -> None:
        self._unseen = 2 * slow  # the load of a line is a sum that is rounded
        self._kept = Kept(self)
        self._paces: dict[str, Pace] = {}
        self._kept_paces = Kept(self._paces)

    def __missing__(self, query: str) -> Text:
        self._kept.make_room(len(query))
        text = self[query] = Text(query, self.pace(query))
        return text

    def pace(self, query: str) -> Pace:
        """Return the pace of texts that differ from this one in literals alone."""
        shape = without_literals(query)
        found = self._paces.get(shape)
        if found is None:
            self._kept_paces.make_room(len(shape))
            found = self._paces[shape] = Pace(self._unseen)
        return found

    def slowest(self, slow: float, most: int) -> list[tuple[str, float]]:
        """Return the shapes that took at least `slow` seconds the last time, and these seconds."""
        paces = ((shape, pace.seconds) for shape, pace in list(self._paces.items()))
        found = [one for one in paces if one[1] >= slow and one[1] != self._unseen]
        return sorted(found, key=lambda one: -one[1])[:most]


def without_literals(query: str) -> str:
    """Return a text with "?" in place of its literals."""
    return _LITERAL.sub("?", query)


class Kept:
    """Bounds what a dictionary keeps, by the number and the length of its keys."""

    def __init__(self, found: dict[str, Any]) -> None:
        self._found = found
        self._length = 0

    def make_room(self, length: int) -> None:
        """Empty the dictionary if one more key of this length is too much."""
        if len(self._found) >= KEPT or self._length + length > CHARACTERS:
            self._found.clear()
            self._length = 0
        self._length += length
