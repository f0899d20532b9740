"""Runs the suite: one child process for each backend and mode."""
