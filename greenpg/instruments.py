"""The numbers of multiplexers, listeners and the process, for any system that collects them."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple


class Instrument(NamedTuple):
    """A number by its key, and what it is; units as in OpenTelemetry."""

    key: str
    kind: Literal["up_down_counter", "counter", "gauge"]
    unit: str
    text: str


MULTIPLEXER: Final = (
    Instrument("connections", "up_down_counter", "{connection}", "Connections that serve"),
    Instrument("waiting", "up_down_counter", "{statement}", "Statements that are not sent yet"),
    Instrument(
        "in_flight", "up_down_counter", "{statement}",
        "Statements that were sent and have no answer yet",
    ),
    Instrument("oldest_wait", "gauge", "s", "Time since the oldest waiting statement"),
    Instrument("statements", "counter", "{statement}", "Statements; a call of executemany is one"),
    Instrument("failed", "counter", "{statement}", "Statements that had no answer"),
    Instrument("answered", "counter", "{statement}", "Statements that had their answer"),
    Instrument("answer_time", "counter", "s", "Time from calls to answers, together"),
    Instrument("slow", "counter", "{statement}", "Statements that ran for long"),
    Instrument("prepared", "up_down_counter", "{statement}", "Prepared statements"),
)  # fmt: skip
LISTENER: Final = (
    Instrument(
        "connected", "up_down_counter", "{connection}", "1 if the listener has its connection"
    ),
    Instrument("subscriptions", "up_down_counter", "{subscription}", "Subscriptions"),
    Instrument("channels", "up_down_counter", "{channel}", "Channels that are listened to"),
    Instrument("notifications", "counter", "{notification}", "Notifications from the server"),
    Instrument("connects", "counter", "{connection}", "Connections made"),
    Instrument("failures", "counter", "{connection}", "Connections lost or not made"),
)
INTERRUPTS: Final = Instrument(
    "interrupts", "counter", "{operation}",
    "Operations that an interrupt ended while they ran, by kind",
)  # fmt: skip
PROCESS: Final = (
    Instrument("cancels", "counter", "{request}", "Cancel requests sent"),
    Instrument(
        "failed_repairs", "counter", "{connection}",
        "Connections closed since an interrupted operation could not be brought to its end",
    ),
    Instrument("stalls", "counter", "{stall}", "Stalls of the event loop"),
    Instrument("stalled", "counter", "s", "Time that the event loop was held up"),
)  # fmt: skip
