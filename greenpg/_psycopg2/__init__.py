"""What knows psycopg2's C code.

psycopg2 has one hook for green threads: the wait callback (wait_callback.py), which it calls with
the connection's mutex held, from inside `cursor.execute` and whatever else has to wait. The
callback drives `poll()` and waits through the backend. It must not raise: psycopg2 would close the
connection (`green_panic` in its psycopg/green.c). So an interrupt crosses C as a field:

1. the backend's wait raises it, inside the callback;
2. `interrupts.interrupted` cancels the query (cancel_request.py), drains the connection, stores the
   exception as `state.pending`, and blocks further sending, since psycopg2 may have a next command;
3. the callback returns normally, and C raises the server's error ("canceling statement") or none;
4. the operation's `leave` puts the state right (`State.recover`), passes the lock on, and raises
   `pending`, the same object, in place of C's error.

Commands that psycopg2 cannot run green (COPY, large objects, pipelines, replication) are libpq's,
called by operation.py during a guarded operation, with greenpg._protocol's steps.

The fields of `State`, beside the core's (greenpg._session):

==================== ============================ ==================================================
field                written by                   meaning
==================== ============================ ==================================================
attempt              attach.py, connect           the attempt to connect, until it has ended
job                  cursor.py, copy/             the COPY that the statement begins, or None
block_paused         COPY blocks                  None: no block; else a Once: unsettled while the
                                                  block's task runs its own code, settled with
                                                  the id of who has libpq
copy_may_be_running  note_copy                    psycopg2 may have abandoned a COPY half-way
status_uncertain     note_failure                 after a failure psycopg2's status may be wrong
sending_blocked      note_blocked                 libpq may be in pipeline mode: psycopg2 is blocked
cursors_fetching     large results                cursors whose result is being built in slices
collector            `conn.notifies`              the program's object, when C must not call it
inbox                C                            notifications that `collector` has not got yet
delivering           recovered                    a task appends to `collector`
plan                 connect                      of the user's string, if another was used
==================== ============================ ==================================================
"""
