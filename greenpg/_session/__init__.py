"""The core: one connection as its tasks share it. It knows no driver and no event loop.

**The lock** (lock.py). One operation at a time uses a connection; tasks that want it meanwhile
stand in a queue and are served in order. A block (`exclusive()`, a pipeline, COPY) keeps the lock
over several operations. Entry into the driver is never re-entrant, not even for the lock's holder.

**An operation** (session.py) is `enter`, calls into the driver, `in_driver = False`, `leave`.
`enter` refuses what would have to wait in the hub, re-entry, a deadline that has passed, and after
an interrupt in a transaction everything but a rollback.

**An interrupt** is a Timeout, a kill, a deadline or Ctrl-C that arrives in a wait. The driver's
room cancels the query and drains it under a `Shield` (shield.py), which bounds the recovery in time
and keeps the interrupts that follow. The exception is left in `pending`; `leave` raises the same
object once the connection is at rest and the lock is passed on. An interrupt that leaves an
operation while it is outside the driver, between two slices of a fetch or in the program's code,
is noted by `note_outside` or `note_error`: the open transaction takes only a rollback then, too.

**Cancels and closes** by another task (cancelling.py, closing.py) wait for the driver's room to
send a cancel request, and for the running operation to leave the driver.

**Fairness** (time_slice.py). An operation that never has to wait pauses after 5 ms.

**Jobs** (job.py). What a task is to do is not lost with a task that never begins.

**Forks** (forks.py). A child finds a dead socket in place of every inherited one.

**Connecting** (connect_plan.py, backoff.py): which addresses to try, in which order, for how long;
what has failed (failures.py).

A driver derives its class from `Session` and gives it `ErrorClasses`. The fields:

==================== =============================== =============================================
field                written by                      meaning
==================== =============================== =============================================
backend              once                            waits for this connection
errors               once                            the driver's exception classes
can_wait, current    once                            the backend's, as attributes for speed
waiter, wait         once                            the connection's waiter, and its `wait`
holder               claim, release, the queue       the task that has the lock, or None; its place
                                                     in the queue until it has run
depth                acquire, before each let_go     how many blocks the holder has entered
queue                _line_up, release               tasks that wait for the lock, oldest first
granted              _pass_on, the granted task      the place whose task has yet to run
last                 _meet                           returns the task that entered last, if it lives
thread               _meet, acquire                  the OS thread that used the connection last
left_over            finalizers in other OS threads  what the next operation calls first
in_driver            enter, before each leave        an operation is inside the driver
waiting_outside      waits outside the driver        the holder waits for the socket, not in C
fd                   the driver, once connected      the socket's descriptor; -1: may still change
deadlines            set_deadline                    each task's deadline, an instant of monotonic()
operation_deadline   enter, bound_operation          that of the running operation, or None
finish_on_interrupt  enter                           drain an interrupted operation, cancel nothing
rolling_back         enter                           the running statement begins with ROLLBACK
pending              note_interrupt, recovery        what interrupted the running operation, or None
must_roll_back       note_transaction, note_outside  an interrupted transaction is open
interrupted_outside  note_outside, the holder        set until it is settled whether an interrupt
                                                     outside the driver has hit an open transaction
cancels              cancelling                      cancel requests of other tasks under way
cancels_done         cancelling                      the event that the last of them sets
cancel_timeout       the pool, users of a connection seconds for a recovery
closing              close_soon                      another task has closed the connection
forked               disable_in_child                the connection is the parent process's
holder_lost          disable_in_child                its holder, a thread, is not in this child
time_slice           itself                          when the calls of this connection pause
==================== =============================== =============================================

Three flags are derived, so that a usual operation tests one flag in place of many causes:
`entry_needs_check`, `wait_needs_check`, `exit_needs_check`. Anybody sets a flag, after its cause;
only the lock's holder clears it, in `refresh_flags`, before it reads the causes.
"""
