"""How all pictures look. Text and lines take the colour of the reader's light or dark theme."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Final

from matplotlib import rc_context, rcdefaults, rcParams
from matplotlib.figure import Figure

WIDTH: Final = 5.6  # inches
INK: Final = "#24292f"  # replaced by the theme's
OUR_COLOUR, PEER_COLOUR = "#2da44e", "#8c959f"
THEME: Final = (
    "<style>svg { color: #24292f }"
    " @media (prefers-color-scheme: dark) { svg { color: #d0d7de } }</style>"
)
NO_DATE: Final = {"Creator": None, "Date": None}


def svg(height: float, paint: Callable[[Figure], None]) -> str:
    """Return a picture of this height, in inches; `paint` fills the figure."""
    with _style():
        figure, text = Figure((WIDTH, height)), StringIO()
        paint(figure)
        figure.savefig(text, format="svg", transparent=True, metadata=NO_DATE)
    before, opening, after = text.getvalue().replace(INK, "currentColor").partition("<defs>")
    return f"{before}{THEME}\n {opening}{after}"


@contextmanager
def _style() -> Iterator[None]:
    """Let nobody's own settings of matplotlib change the pictures."""
    with rc_context():
        rcdefaults()
        rcParams.update(
            {
                "axes.edgecolor": INK,
                "axes.labelcolor": INK,
                "axes.titlesize": 11,
                "axes.titleweight": "bold",
                "font.size": 10,
                "svg.fonttype": "none",
                "svg.hashsalt": "greenpg",
                "text.color": INK,
                "xtick.color": INK,
                "ytick.color": INK,
            }
        )
        yield
