"""What became of the tests, and what that means for the whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final

__all__ = ["BAD", "Column", "Result", "failed", "summary", "verdict"]

BAD: Final = ("hang", "fail")
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

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {**asdict(self), "column": str(self.column)}


def verdict(outcomes: Iterable[str]) -> str:
    """Return the worst of the outcomes of a test's cases."""
    present = set(outcomes)
    return next((outcome for outcome in ORDER if outcome in present), "")


def failed(results: Iterable[Result], strict: bool) -> bool:
    """Tell whether the suite as a whole failed; when strict, a skip fails it too."""
    bad = (*BAD, "skip") if strict else BAD
    return any(result.outcome in bad for result in results)


def summary(results: Iterable[Result]) -> str:
    """Return the line `N passed, N failed, N skipped`; a hang is a failure."""
    count = Counter(result.outcome for result in results)
    bad = count["fail"] + count["hang"]
    skipped = count["skip"] + count["lacking"]
    return f"{count['pass']} passed, {bad} failed, {skipped} skipped"
