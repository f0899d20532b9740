"""A workload as curves: metrics over the number in the contenders' variants, both on log scales."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING, Final, NamedTuple

from greenpg_bench.stats import values

from .theme import INK, OUR_COLOUR, PEER_COLOUR, WIDTH, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from greenpg_bench.model import Metric, Workload
    from greenpg_bench.stats import Samples

PLOT, LEGEND, HEADING, FEET, LEFT, RIGHT = 2.2, 0.75, 0.36, 0.5, 0.75, 0.2  # inches
DASHES: Final = ("solid", "dashed", "dotted")


class Curve(NamedTuple):
    """One driver at one setting; points are a number and the median there."""

    driver: str
    setting: str
    points: list[tuple[float, float]]


def picture(workload: Workload, samples: Samples) -> str:
    """Return the workload's picture, "" if there are no samples to draw."""
    plots = [(metric, curves(workload, samples, metric)) for metric in workload.metrics]
    plots = [(metric, found) for metric, found in plots if found]
    height = LEGEND + len(plots) * (HEADING + PLOT + FEET)
    return svg(height, lambda figure: _paint(figure, workload, plots)) if plots else ""


def curves(workload: Workload, samples: Samples, metric: Metric) -> list[Curve]:
    """Return a metric's curves in the order of the contenders; variants are "SETTING, NUMBER"."""
    found: dict[tuple[str, str], Curve] = {}
    for contender in (one for group in workload.groups for one in group):
        if measured := values(samples.get(contender.name, ()), metric.key):
            setting, _, number = contender.variant.rpartition(", ")
            curve = Curve(contender.driver, setting, [])
            points = found.setdefault((contender.driver, setting), curve).points
            points.append((float(number), median(measured)))
    return list(found.values())


def _paint(
    figure: Figure, workload: Workload, plots: Sequence[tuple[Metric, Sequence[Curve]]]
) -> None:
    width, height = figure.get_size_inches()
    top = height - LEGEND
    for metric, found in plots:
        top -= HEADING + PLOT
        place = (LEFT / width, top / height, (WIDTH - LEFT - RIGHT) / width, PLOT / height)
        axes = figure.add_axes(place)
        _plot(axes, found)
        axes.set_title(metric.heading, loc="left")
        axes.set_xlabel(workload.axis)
        top -= FEET
    lines, labels = axes.get_legend_handles_labels()
    figure.legend(lines, labels, loc="upper center", ncols=2, frameon=False)


def _plot(axes: Axes, found: Sequence[Curve]) -> None:
    drivers = list(dict.fromkeys(curve.driver for curve in found))
    settings = list(dict.fromkeys(curve.setting for curve in found))
    for curve in sorted(found, key=lambda curve: drivers.index(curve.driver)):
        axes.loglog(
            *zip(*curve.points, strict=True),
            color=OUR_COLOUR if curve.driver == drivers[0] else PEER_COLOUR,
            linestyle=DASHES[settings.index(curve.setting) % len(DASHES)],
            label=f"{curve.driver}, {curve.setting}",
        )
    axes.grid(which="major", color=INK, alpha=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.minorticks_off()
