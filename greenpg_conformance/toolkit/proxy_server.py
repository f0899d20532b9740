"""The proxy's process: `python -m greenpg_conformance.toolkit.proxy_server HOST PORT [PEM]`."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from greenpg._helper_process import Reply, send
from greenpg.embedded.supervisor import free_port

Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]

CHUNK: Final = 65536
AHEAD: Final = 64  # chunks held back before the sender's socket is left to fill up
SSL_REQUEST: Final = struct.pack("!ii", 8, 80877103)
RESET: Final = struct.pack("ii", 1, 0)
WAYS: Final = {"down": ("down",), "up": ("up",), "both": ("down", "up")}


@dataclass(frozen=True, slots=True)
class Manner:
    """How data is delivered."""

    delay: float = 0.0
    size: int = 0
    pause: float = 0.0
    stalled: bool = False


class Pipe:
    """One direction of one connection."""

    def __init__(self, manner: Manner) -> None:
        self._manner = manner
        self._changed = asyncio.Event()
        self._held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(AHEAD)

    def set(self, manner: Manner) -> None:
        self._manner = manner
        self._changed.set()

    async def take(self, reader: asyncio.StreamReader) -> None:
        while True:
            data = await reader.read(CHUNK)
            await self._held.put((asyncio.get_running_loop().time(), data))
            if not data:
                return

    async def deliver(self, writer: asyncio.StreamWriter) -> None:
        while True:
            arrived, data = await self._held.get()
            await self._until_due(arrived)
            if not data:
                writer.close()
                return
            await self._write(writer, data)

    async def _until_due(self, arrived: float) -> None:
        now = asyncio.get_running_loop().time
        while self._manner.stalled or now() < arrived + self._manner.delay:
            self._changed.clear()
            left = None if self._manner.stalled else arrived + self._manner.delay - now()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left)

    async def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        while data:
            size = self._manner.size or len(data)
            writer.write(data[:size])
            await writer.drain()
            data = data[size:]
            await asyncio.sleep(self._manner.pause)
            await self._until_due(0.0)


class Link:
    """One client's connection and the one to the server behind it."""

    def __init__(self, manners: dict[str, Manner], client: Streams, server: Streams) -> None:
        self._pipes = {way: Pipe(manner) for way, manner in manners.items()}
        self._client, self._server = client, server
        self._running: list[asyncio.Future[None]] = []

    def set(self, way: str, manner: Manner) -> None:
        self._pipes[way].set(manner)

    async def run(self) -> None:
        up, down = self._pipes["up"], self._pipes["down"]
        steps = (
            up.take(self._client[0]),
            up.deliver(self._server[1]),
            down.take(self._server[0]),
            down.deliver(self._client[1]),
        )
        self._running = [asyncio.ensure_future(step) for step in steps]
        try:
            await asyncio.gather(*self._running)
        except (OSError, asyncio.CancelledError):
            self.cut()

    def cut(self) -> None:
        for step in self._running:
            step.cancel()
        for _, writer in (self._client, self._server):
            with suppress(OSError):
                raw = writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()


class Proxy:
    """The listening socket, the links and the orders."""

    def __init__(self, host: str, port: str, certificate: str | None = None) -> None:
        self._target = (host, port)
        self._certificate = certificate
        self._tls_port = 0
        self._manners = {"down": Manner(), "up": Manner()}
        self._links: set[Link] = set()
        self._accepted = 0
        self._port = free_port()
        self._server: asyncio.Server | None = None

    async def start(self) -> Reply:
        if self._certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._certificate)
            self._tls_port = free_port()
            await asyncio.start_server(self._decrypt, "127.0.0.1", self._tls_port, ssl=context)
        return await self.admit()

    async def admit(self) -> Reply:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
        return {"port": self._port}

    async def refuse(self) -> Reply:
        if self._server is not None:
            self._server.close()
            self._server = None
        return {}

    async def set(self, way: str, scope: str, manner: dict[str, Any]) -> Reply:
        for name in WAYS[way]:
            if scope != "present":
                self._manners[name] = Manner(**manner)
            for link in self._links if scope != "coming" else ():
                link.set(name, Manner(**manner))
        return {}

    async def cut(self) -> Reply:
        links = list(self._links)
        for link in links:
            link.cut()
        return {"links": len(links)}

    async def count(self) -> Reply:
        return {"links": len(self._links), "accepted": self._accepted}

    async def follow_orders(self) -> None:
        """Obey orders from standard input until its end."""
        loop = asyncio.get_running_loop()
        orders = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
        while line := await orders.readline():
            details = json.loads(line)
            send(await getattr(self, details.pop("order"))(**details))

    async def _accept(self, *client: Any) -> None:
        self._accepted += 1
        try:
            server = await self._behind(client)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):  # at the proxy's end
            client[1].transport.abort()
            return
        link = Link(self._manners, client, server)
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)

    async def _behind(self, client: Streams) -> Streams:
        """Reach the server, through our own TLS listener if the client asks for encryption.

        So it is the encrypted stream that is delayed and cut, as a network would.
        """
        if not self._certificate:
            return await self._reach()
        first = await client[0].readexactly(len(SSL_REQUEST))
        if first == SSL_REQUEST:
            client[1].write(b"S")
            return await asyncio.open_connection("127.0.0.1", self._tls_port)
        server = await self._reach()
        server[1].write(first)
        return server

    async def _decrypt(self, *client: Any) -> None:
        with suppress(asyncio.CancelledError):  # as Link.run does; else asyncio prints it
            await Link({"down": Manner(), "up": Manner()}, client, await self._reach()).run()

    async def _reach(self) -> Streams:
        host, port = self._target
        if host.startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        return await asyncio.open_connection(host, int(port))


async def main(*server: str) -> None:
    """Listen until standard input ends."""
    proxy = Proxy(*server)
    send(await proxy.start())
    await proxy.follow_orders()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
