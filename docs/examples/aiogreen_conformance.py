"""What the conformance suite must know about aiogreen."""

from aiogreen import backend, getcurrent, hub, local

from greenpg.conformance import Description


class Timeout(BaseException):
    """Raises itself in the running task after `seconds`."""

    def __init__(self, seconds):
        self.seconds = seconds

    def __enter__(self):
        hub()
        self.timer = local.loop.call_later(self.seconds, getcurrent().throw, self)
        return self

    def __exit__(self, *_):
        self.timer.cancel()


def in_hub(fn):
    hub()
    local.loop.call_soon(fn)


def registered():
    selector = local.loop._selector.get_map().values()
    return {
        key.fd: f"descriptor {key.fd}" for key in selector if key.fd != local.loop._ssock.fileno()
    }


def hub_of_thread_ends():
    if hasattr(local, "hub"):
        local.loop.call_soon(local.loop.stop)
        while not local.hub.dead:
            local.hub.switch()
        local.loop.close()


conformance = Description(
    sockets=None,  # an event loop whose sockets belong to coroutines
    in_hub=in_hub,
    timeout=Timeout,
    registered=registered,
    hub_of_thread_ends=hub_of_thread_ends,
)
__all__ = ["backend", "conformance"]
