"""The fake server's process: `python -m greenpg_conformance.toolkit.fake_server_process`."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from greenpg._helper_process import Reply, send

from .fake_server import message

SSL_REQUEST, GSS_REQUEST, CANCEL_REQUEST = 80877103, 80877104, 80877102
SETTINGS: Final = {
    "client_encoding": "UTF8", "DateStyle": "ISO, MDY", "integer_datetimes": "on",
    "server_encoding": "UTF8", "server_version": "17.0", "standard_conforming_strings": "on",
}  # fmt: skip
BEGUN: Final = message(b"R", bytes(4)) + b"".join(
    message(b"S", f"{name}\0{value}\0".encode()) for name, value in SETTINGS.items()
) + message(b"K", bytes(8))  # fmt: skip
EXTENDED: Final = {b"P": message(b"1"), b"B": message(b"2"), b"D": message(b"n")}
STATUS: Final = {"BEGIN": b"T", "COMMIT": b"I", "ROLLBACK": b"I"}


@dataclass(frozen=True)
class Answer:
    """What is sent in place of the usual answer."""

    part: bytes
    reply: bytes
    flood: bytes
    end: bool = False


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._status = b"I"
        self._word = ""

    async def startup(self) -> bytes:
        """Return the startup packet; b"" for a cancel request."""
        while True:
            size = int.from_bytes(await self._reader.readexactly(4), "big")
            packet = await self._reader.readexactly(size - 4)
            code = int.from_bytes(packet[:4], "big")
            if code == CANCEL_REQUEST:
                return b""
            if code not in (SSL_REQUEST, GSS_REQUEST):
                return packet
            self._writer.write(b"N")

    async def message(self) -> bytes:
        """Return the next message: its type and its content."""
        kind, size = await self._reader.readexactly(1), await self._reader.readexactly(4)
        return kind + await self._reader.readexactly(int.from_bytes(size, "big") - 4)

    def usual(self, received: bytes) -> bytes:
        kind = received[:1]
        if kind in (b"Q", b"P"):
            text = received.split(b"\0")[kind == b"P"] if kind == b"P" else received[1:-1]
            self._word = (text.decode(errors="replace").split() or [""])[0].strip(";").upper()
        if kind == b"E":
            return self._done()
        if kind == b"Q":
            return self._done() + self._ready()
        return EXTENDED.get(kind) or (self._ready() if kind == b"S" else b"")

    def begun(self) -> bytes:
        return BEGUN + self._ready()

    def _done(self) -> bytes:
        self._status = STATUS.get(self._word, self._status)
        tag = f"{self._word} 0 1" if self._word == "INSERT" else self._word
        return message(b"C", tag.encode() + b"\0")

    def _ready(self) -> bytes:
        return message(b"Z", self._status)

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def special(self, answer: Answer) -> None:
        await self.send(answer.reply)
        while answer.flood:
            await self.send(answer.flood)

    def close(self) -> None:
        self._writer.close()


class FakeServer:
    """The listening socket and the orders."""

    def __init__(self) -> None:
        self._answer = Answer(b"", b"", b"")
        self._received: list[bytes] = []

    async def start(self) -> Reply:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return {"port": server.sockets[0].getsockname()[1]}

    async def answer(self, part: str, reply: str, flood: str, end: bool) -> Reply:
        raw = bytes.fromhex
        self._answer = Answer(raw(part), raw(reply), raw(flood), end)
        return {}

    async def received(self) -> Reply:
        found, self._received = self._received, []
        return {"messages": [one.hex() for one in found]}

    async def follow_orders(self) -> None:
        """Obey orders from standard input until its end."""
        loop = asyncio.get_running_loop()
        orders = asyncio.StreamReader(limit=1 << 24)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
        while line := await orders.readline():
            details = json.loads(line)
            send(await getattr(self, details.pop("order"))(**details))

    async def _accept(self, *streams: Any) -> None:
        client = Client(*streams)
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._serve(client)
        client.close()

    async def _serve(self, client: Client) -> None:
        received = await client.startup()
        usual = client.begun()
        while received and received[:1] != b"X":
            self._received.append(received)
            answer = self._answer
            if answer.part and answer.part in received:
                await client.special(answer)
                if answer.end:
                    return
            else:
                await client.send(usual)
            received = await client.message()
            usual = client.usual(received)


async def main() -> None:
    """Listen until standard input ends."""
    server = FakeServer()
    send(await server.start())
    await server.follow_orders()


if __name__ == "__main__":
    asyncio.run(main())
