"""Tools for tests of green code: heartbeat, leaks, a proxy, an observer of the server."""
