"""Making connections.

`connect.connect` is greenpg.connect; `connect.hook` makes psycopg2.connect the same. What it does:

1. The connection string becomes a plan (`_session/connect_plan.py`): hosts, addresses, timeout.
   Names are resolved by the backend, since libpq blocks while it does.
2. The user's factory gets the green class under it (`_green_classes.py`).
3. For each address in turn the factory is called. What is asked of the connection, its backend and
   the limits of the attempt, is in a context variable (`_psycopg2/attempt.py`): psycopg2's classes
   have no argument for it.
4. Before C opens a socket the connection gets its state (`_psycopg2/attach.py`), and C's
   `__init__` calls the wait callback, which connects (`_psycopg2/wait_callback.py`).
5. A connection that fails is closed at once, whatever interrupts it.
"""
