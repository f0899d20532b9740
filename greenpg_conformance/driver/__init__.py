"""What the driver guarantees on every backend: greenpg's own tests, run with `--all`."""
