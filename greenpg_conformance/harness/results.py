"""The outcome of each test, and what the outcomes mean for the whole suite."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final

BAD: Final = ("hang", "fail")
TRACEBACK: Final = "Traceback (most recent call last):"
ORDER: Final = ("hang", "fail", "skip", "pass", "lacking")


@dataclass(frozen=True, slots=True)
class Column:
    """A backend in one of its modes."""

    backend: str
    mode: str

    def __str__(self) -> str:
        return f"{self.backend}/{self.mode}"


@dataclass(frozen=True, slots=True)
class Result:
    """One test in one column.

    `outcome` is pass, fail, hang, skip (something is missing here: `detail` names it) or
    lacking (the backend does not claim the capability, which is its right).
    """

    column: Column
    row: str
    test: str
    outcome: str
    seconds: float = 0.0
    detail: str = ""

    @property
    def headline(self) -> str:
        """The column, the test and the error in one line; of a long message the two ends."""
        lines = self.detail.strip().splitlines() or [""]
        if lines[0] != TRACEBACK:
            return f"{self.column} {self.test}: {lines[0]}"
        error = lines[len(lines) - lines[::-1].index(TRACEBACK) :]
        first = next((at for at, line in enumerate(error) if not line[:1].isspace()), -1)
        told = dict.fromkeys((error[first], error[-1].strip()))  # no line twice
        return f"{self.column} {self.test}: {' ... '.join(told)}"

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {**asdict(self), "column": str(self.column)}


def verdict(outcomes: Iterable[str]) -> str:
    """Return the worst of the outcomes of a test's cases."""
    present = set(outcomes)
    return next((outcome for outcome in ORDER if outcome in present), "")


def failed(results: Iterable[Result], strict: bool) -> bool:
    """Return True if the suite as a whole failed; when strict, a skip fails it too."""
    bad = (*BAD, "skip") if strict else BAD
    return any(result.outcome in bad for result in results)


def summary(results: Iterable[Result]) -> str:
    """Return the line `N passed, N failed, N skipped`; a hang is a failure."""
    count = Counter(result.outcome for result in results)
    bad = count["fail"] + count["hang"]
    skipped = count["skip"] + count["lacking"]
    return f"{count['pass']} passed, {bad} failed, {skipped} skipped"
