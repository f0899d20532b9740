"""Checks whether an environment, or a program, is green; each bad row has a remedy."""

from ._process import here
from .examination import examine
from .rows import Row

__all__ = ["Row", "examine", "here"]
