"""Draws docs/interrupt.svg, how an interrupt crosses C: `python docs/draw_interrupt.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

LANES: Final = ("program", "green cursor", "psycopg2 (C)", "wait callback", "server")
WIDTH, TOP, ROW, LANE = 900, 60, 34, 180
STEPS: Final = (
    (0, 1, "cur.execute(...)", ""),
    (1, 2, "enter(), then C's execute", ""),
    (2, 4, "the query", ""),
    (2, 3, "calls it, mutex held", ""),
    (3, 3, "wait() raises Timeout", "bad"),
    (3, 4, "cancel request", "bad"),
    (4, 3, "error: query canceled", ""),
    (3, 3, "pending = Timeout", "bad"),
    (3, 2, "returns normally", ""),
    (2, 1, "raises QueryCanceled", ""),
    (1, 1, "leave(): recover, release", ""),
    (1, 0, "raises the same Timeout", "bad"),
)
STYLE: Final = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.lane { font-weight: 600 } line { stroke: #8c959f } .arrow { stroke: #24292f; fill: none }
.bad { fill: #b3261e } .arrow.bad { stroke: #b3261e; fill: none }
@media (prefers-color-scheme: dark) {
  text { fill: #d0d7de } .arrow { stroke: #d0d7de } .bad { fill: #ff8a80 }
  .arrow.bad { stroke: #ff8a80 } }
"""


def middle(lane: int) -> int:
    return 90 + lane * LANE


def step(number: int, start: int, end: int, text: str, kind: str) -> str:
    y = TOP + 40 + number * ROW
    if start == end:
        x = middle(start)
        return (
            f'<circle cx="{x}" cy="{y - 4}" r="4" class="{kind}"/>'
            f'<text x="{x + 10}" y="{y}" class="{kind}">{text}</text>'
        )
    first, last = middle(start), middle(end)
    head = 7 if last > first else -7
    return (
        f'<path class="arrow {kind}" d="M{first} {y} H{last} m{-head} -4 l{head} 4 l{-head} 4"/>'
        f'<text x="{min(first, last) + 10}" y="{y - 6}" class="{kind}">{text}</text>'
    )


def drawing() -> str:
    height = TOP + 60 + len(STEPS) * ROW
    lanes = "".join(
        f'<text class="lane" x="{middle(n)}" y="30" text-anchor="middle">{name}</text>'
        f'<line x1="{middle(n)}" y1="42" x2="{middle(n)}" y2="{height - 16}"/>'
        for n, name in enumerate(LANES)
    )
    steps = "".join(step(number, *row) for number, row in enumerate(STEPS))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">'
        f"<title>How an interrupt crosses C</title><style>{STYLE}</style>{lanes}{steps}</svg>\n"
    )


if __name__ == "__main__":
    Path(__file__).with_name("interrupt.svg").write_text(drawing())
