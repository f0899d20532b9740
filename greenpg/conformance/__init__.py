"""The shipped conformance suite: one child process per backend and mode."""
