"""Checks whether an environment, or a program, is green; each bad row has a remedy."""

from ._examine import examine
from ._process import here
from ._row import Row

__all__ = ["Row", "examine", "here"]
