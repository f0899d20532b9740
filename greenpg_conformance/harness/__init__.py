"""Runs the suite: one child process for each backend and mode.

`describe` says what a backend's author provides, `tests` finds the tests, `context` is what a
test gets, `runner` starts the children, `worker` is the child, `results` sums up.
"""
