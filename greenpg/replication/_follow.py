"""Following a logical slot across lost connections."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from psycopg2 import Error, InterfaceError, OperationalError
from psycopg2.extras import StopReplication

from greenpg._session.backoff import backoff, one_line

if TYPE_CHECKING:
    from greenpg.backend import Backend

log = logging.getLogger("greenpg")


@dataclass(slots=True, eq=False)
class Follower:
    """Consumes a slot over as many connections as needed; `position` is the confirmed one.

    `connect()` makes a connection, and `begin(cursor, position)` starts the stream on it.
    """

    connect: Callable[[], Any]
    begin: Callable[[Any, int], None]
    consume: Callable[[Any], object]
    backend: Backend
    patience: float | None
    position: int = 0
    _began: bool = False
    _failures: int = 0
    _lost_since: float | None = None
    _raised: BaseException | None = None  # by the consumer; propagates

    def run(self) -> None:
        """Return at StopReplication; other exceptions of the consumer propagate."""
        while True:
            try:
                self._connected()
                log.warning("replication: the server has ended the stream, trying again")
            except StopReplication:
                return
            except Error as err:
                if not self._is_worth_a_try(err):
                    raise
                log.warning("replication: connection lost, trying again: %s", one_line(err))
            self._failures += 1
            self.backend.sleep(backoff(self._failures - 1))

    def _is_worth_a_try(self, error: Error) -> bool:
        if self._lost_since is None:
            self._lost_since = monotonic()
        patient = self.patience is None or monotonic() - self._lost_since < self.patience
        lost = isinstance(error, OperationalError | InterfaceError)
        return self._began and patient and lost and error is not self._raised

    def _connected(self) -> None:
        with closing(self.connect()) as conn:
            cur = conn.cursor()
            cur.send_feedback(flush_lsn=self.position)
            self.begin(cur, self.position)
            self._began, self._lost_since = True, None
            self._stream(cur)

    def _stream(self, cur: Any) -> None:
        try:
            cur.consume_stream(self._each)
        except Exception as err:
            if err is self._raised:
                with suppress(Error):  # the slot is released, with the position, on return
                    cur.stop_replication()
            raise
        except BaseException:
            with suppress(Error):
                cur.send_feedback(force=True)
            raise
        finally:
            self.position = max(self.position, cur.flush_lsn)

    def _each(self, message: Any) -> None:
        self._failures = 0
        try:
            self.consume(message)
        except BaseException as exc:
            self._raised = exc
            raise
