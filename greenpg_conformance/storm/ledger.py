"""The rows that the storm's table must, may and must not contain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class Ledger:
    """Rows are `open` until their transaction ends; the value says if the insert was acknowledged.

    `doubtful` holds groups of which all rows may be there or none: an interrupted COMMIT.
    """

    def __init__(self) -> None:
        self.open: dict[int, bool] = {}
        self._must: set[int] = set()
        self._never: set[int] = set()
        self._doubtful: list[set[int]] = []
        self._committing = False

    def begin(self, row: int, autocommit: bool) -> None:
        """Note that an insert is about to be sent."""
        if autocommit:
            self._doubtful.append({row})
        else:
            self.open[row] = False

    def acknowledge(self, row: int, autocommit: bool) -> None:
        """Note that the insert succeeded."""
        if autocommit:
            self._must.add(row)
        else:
            self.open[row] = True

    @contextmanager
    def inserting(self, rows: Sequence[int], autocommit: bool) -> Iterator[None]:
        """Note that the block inserts these rows; its end acknowledges all of them."""
        for row in rows:
            self.begin(row, autocommit)
        yield
        for row in rows:
            self.acknowledge(row, autocommit)

    def committing(self) -> None:
        """Note that a COMMIT is about to be sent."""
        self._committing = True

    def refused(self) -> None:
        """Note that greenpg refused to commit."""
        self._committing = False

    def committed(self) -> None:
        """Note that a COMMIT succeeded."""
        self._must.update(row for row, known in self.open.items() if known)
        self._doubtful.extend({row} for row, known in self.open.items() if not known)
        self.open.clear()
        self._committing = False

    def over(self) -> None:
        """Note that the transaction has ended by something else than an acknowledged COMMIT."""
        if self._committing:
            self._doubtful.append({row for row, known in self.open.items() if known})
            self._doubtful.extend({row} for row, known in self.open.items() if not known)
        else:
            self._never.update(self.open)
        self.open.clear()
        self._committing = False

    def undo_since(self, row: int) -> None:
        """Note a rollback to a savepoint made before this row."""
        undone = [later for later in self.open if later >= row]
        for later in undone:
            del self.open[later]
        self._never.update(undone)

    def complaint(self, rows: set[int]) -> str | None:
        """Compare with the rows that are there; return what is wrong, if anything."""
        wrong = {
            "acknowledged but lost": self._must - rows,
            "rolled back but there": self._never & rows,
            "there, nobody knows why": rows - self._must.union(*self._doubtful),
            "half of a transaction": set().union(*self._halves(rows)),
        }
        found = [f"{what}: {sorted(which)}" for what, which in wrong.items() if which]
        return "; ".join(found) or None

    def _halves(self, rows: set[int]) -> list[set[int]]:
        return [group for group in self._doubtful if group & rows and group - rows]
