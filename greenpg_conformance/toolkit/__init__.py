"""Tools for tests of green code, public to the project's tests: each module is one tool.

Is it green: heartbeat, machine. What is left: leaks, memory. What the server does: observer.
A bad network: proxy, sockets. What runs beside a test: jobs, watchdog.
"""
