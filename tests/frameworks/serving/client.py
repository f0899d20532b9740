"""A small HTTP client that keeps hundreds of connections busy."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from time import monotonic
from typing import Any

__all__ = ["Client", "Reply", "fetch"]


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply, and the seconds that it took."""

    status: int
    data: dict[str, Any]
    seconds: float


class Client:
    """One HTTP connection, kept alive between requests."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, port: int) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def get(self, path: str) -> Reply:
        """Send a request, return the reply; asyncio.IncompleteReadError if it is cut off."""
        began = monotonic()
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        status = int(head.split()[1])
        length = int(head.partition("content-length:")[2].split()[0])
        body = await self._reader.readexactly(length)
        data = json.loads(body) if status == 200 else {}
        return Reply(status, data, monotonic() - began)

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


async def fetch(port: int, path: str) -> Reply:
    """Make one request on a connection of its own."""
    client = await Client.connect(port)
    try:
        return await client.get(path)
    finally:
        await client.close()
