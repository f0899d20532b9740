"""What a backend's author describes it with, for `greenpg conformance`."""

from greenpg_conformance import Description, Mode

__all__ = ["Description", "Mode"]
