"""The multiplexer: statements of many tasks on few connections, sent and received together.

**Parts.** `_scan` tells from a statement's text whether it touches the session, and is refused.
`_texts` remembers that for each text, and how long its statements run. A `Group` (`_group`) is
what one call asks: a statement, or all of an executemany, and one transaction. A `Line` (`_line`)
is a connection that the multiplexer has borrowed from its pool, with the groups under way on it.
`Multiplexer` (`_multiplexer`) has the queue of groups and gives them to lines. libpq's side is
`greenpg._protocol.groups`.

**Who sends.** A task appends its group to the queue and waits for the group's event; it never
touches libpq. The first one of a turn schedules `push` by the backend's `soon`: when the tasks
that were ready have run, `push` gives all groups to lines and flushes each line once. Where tasks
are OS threads, the task pushes at once, or leaves it to the thread that is at it. `push` never
waits, and holds the multiplexer's lock. One that finds the lock taken leaves a note, `_due`: who
releases the lock looks at it.

**How much is sent.** What the socket does not take waits in the queue, not in libpq: a line with
`groups.MOST` bytes in libpq is full until those are sent.

**Who receives.** Each line has a task, which waits for the socket, reads what has come, sets the
events of the groups that have ended in order, and pushes what waits in the queue. The rows are
made by the task that asked, so neither a typecaster nor an adapter ever holds a line up.

**Which line.** Each has a load: the seconds that its groups are expected to run, by what their
texts took the last time. A line gets groups while its load is below `slow` and the oldest of them
is not overdue by `slow`; the first one with less than PACKED is chosen, which fills packets. A text
never seen is taken for slow, so that nothing is sent behind it. What no line takes waits in the
queue, and asks for one more line.

**States of a line.** *Opening*: its task waits for a connection of the pool. *Open*. *Closed to
new groups*: it is cancelling, or has served for long enough that the pool should see its
connection again, or the multiplexer is closing. *Ended*: the connection is back in the pool, or
lost. One task ends lines that were without work for LINGER seconds, and waits that last too
long; it ends with the last of both, so an idle multiplexer has no task at all.

**Interrupts.** They reach only the waiting task. A group in the queue is taken out. One that was
sent is marked as abandoned and its answer dropped. Once nobody waits for anything on a line, a
task cancels what runs there, and the line gets nothing until the cancel request has ended. A kill
of a line's own task is a lost connection.

**Faults.** When a connection is lost the groups on it raise OperationalError, since they may have
run; those in the queue go to other lines. Connecting, backoff, checks and statistics are the
pool's. A session that a statement has changed in spite of `_scan`, by the server's own word, is
closed before any later answer counts.
"""

from ._measures import LineReport, MultiplexerMeasures
from ._multiplexer import Multiplexer, all_multiplexers

__all__ = ["LineReport", "Multiplexer", "MultiplexerMeasures", "all_multiplexers"]
