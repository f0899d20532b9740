"""A server in another process that speaks the protocol, and answers as no real server does."""

from __future__ import annotations

from typing import Any, Final

from greenpg._helper_process import Child

__all__ = ["FakeServer", "message"]


def message(kind: bytes, body: bytes = b"") -> bytes:
    """Return one message of the server: its type, its length, its content."""
    return kind + (len(body) + 4).to_bytes(4, "big") + body


class FakeServer:
    """Accepts every client, and every statement, without rows; `answer` replaces an answer.

    A simple query, or all messages up to a Sync, end with ReadyForQuery.
    """

    def __init__(self) -> None:
        """Start the server's process, which ends when this one does."""
        self._child = Child(f"{__package__}.fake_server_process")
        port = self._child.greeting["port"]
        address = f"host=127.0.0.1 hostaddr=127.0.0.1 port={port}"
        self.dsn: Final = f"{address} user=fake dbname=fake sslmode=disable gssencmode=disable"

    def __enter__(self) -> FakeServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def answer(self, part: bytes, reply: bytes, *, flood: bytes = b"", end: bool = False) -> None:
        """Answer each client's message that contains `part` with `reply`, and nothing else.

        Then `flood` is sent without an end, or with `end` the connection is closed. The latest
        such call counts.
        """
        details: dict[str, Any] = {"part": part.hex(), "reply": reply.hex()}
        self._child.ask("answer", **details, flood=flood.hex(), end=end)

    def received(self) -> list[bytes]:
        """Return the messages received since the last call, startup packets included."""
        found: list[str] = self._child.ask("received")["messages"]
        return [bytes.fromhex(one) for one in found]

    def close(self) -> None:
        """End the server's process, and with it every connection."""
        self._child.close()
