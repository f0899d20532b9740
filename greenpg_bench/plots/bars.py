"""A workload as bars: the contenders of each group below each other, metric by metric."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from statistics import quantiles
from typing import TYPE_CHECKING, Final, NamedTuple

from greenpg_bench.stats import values

from .theme import INK, OUR_COLOUR, PEER_COLOUR, WIDTH, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from greenpg_bench.model import Contender, Metric, Workload
    from greenpg_bench.stats import Samples

OURS: Final = ("greenpg", "multiplexer")
ROW, HEADING, GAP, MARGIN, LETTER = 0.2, 0.38, 0.1, 0.1, 0.085  # inches
LEAST: Final = 1e-9  # a scale of nothing has no length
ROOM: Final = 1.25  # for the number behind the longest bar


class Row(NamedTuple):
    """A contender's median, between the lower and the upper quartile of its rounds."""

    name: str
    low: float
    median: float
    high: float


class Panel(NamedTuple):
    """The contenders of a group, compared in one metric; `longest` is where the scale ends."""

    metric: Metric
    heading: str
    rows: Sequence[Row]
    longest: float

    @property
    def height(self) -> float:
        """In inches, with the heading or the gap above it."""
        return (HEADING if self.heading else GAP) + ROW * len(self.rows)


def picture(workload: Workload, samples: Samples) -> str:
    """Return the workload's picture, "" if there are no samples to draw."""
    panels = list(_panels(workload, samples))
    height = sum(panel.height for panel in panels) + MARGIN
    return svg(height, lambda figure: _paint(figure, panels, height)) if panels else ""


def _panels(workload: Workload, samples: Samples) -> Iterator[Panel]:
    """Yield the panels of the metrics that have a target: the others explain these.

    Each group has a scale of its own, unless a target bounds the metric itself.
    """
    for metric in workload.metrics:
        targets = [target for target in workload.targets if target.metric == metric.key]
        groups = [list(_rows(group, metric, samples)) for group in workload.groups]
        bounds = [target.limit for target in targets if target.peer is None]
        heading = metric.heading
        for rows in filter(None, groups if targets else ()):
            compared = chain(*groups) if bounds else rows
            yield Panel(metric, heading, rows, max(*bounds, *(row.high for row in compared), LEAST))
            heading = ""


def _rows(group: Sequence[Contender], metric: Metric, samples: Samples) -> Iterator[Row]:
    for contender in group:
        found = values(samples.get(contender.name, ()), metric.key)
        if len(found) > 1:
            yield Row(contender.name, *quantiles(found, method="inclusive"))
        elif found:
            yield Row(contender.name, *found * 3)


def _paint(figure: Figure, panels: Sequence[Panel], height: float) -> None:
    letters = max(len(row.name) for panel in panels for row in panel.rows)
    left = (MARGIN + LETTER * letters) / WIDTH
    bottom = height
    for panel in panels:
        bottom -= panel.height
        bars = ROW * len(panel.rows)
        _bars(figure.add_axes((left, bottom / height, 1 - left, bars / height)), panel)


def _bars(axes: Axes, panel: Panel) -> None:
    """Draw a bar up to each median, and a line over the middle half of the rounds."""
    places = range(len(panel.rows))
    names, low, middle, high = zip(*panel.rows, strict=True)
    colours = [OUR_COLOUR if name.startswith(OURS) else PEER_COLOUR for name in names]
    axes.barh(places, middle, color=colours)
    axes.hlines(places, low, high, color=INK, linewidth=1)
    for place, end, value in zip(places, high, middle, strict=True):
        text = panel.metric.form.format(value)
        axes.text(end + panel.longest / 60, place, text, verticalalignment="center")
    axes.set_title(panel.heading, loc="left")
    axes.set_xlim(0, panel.longest * ROOM)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(places, names)
    axes.tick_params(length=0)
    axes.xaxis.set_visible(False)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
