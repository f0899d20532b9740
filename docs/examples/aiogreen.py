"""A backend for greenpg: greenlets on an asyncio event loop."""

import asyncio
import os
import socket
import sys
import threading
from selectors import PollSelector

from greenlet import GreenletExit, getcurrent, greenlet

from greenpg.backend import READ, WRITE

local = threading.local()


def hub():
    """Return this thread's hub: the greenlet whose only work is to run the thread's loop."""
    if not hasattr(local, "loop"):
        local.loop = asyncio.SelectorEventLoop(PollSelector())  # an epoll is shared by forks
    if not hasattr(local, "hub") or local.hub.dead:  # Ctrl-C ends it
        local.hub = greenlet(local.loop.run_forever)
    return local.hub


class Sleep:
    """One wait of the running task. `wake` and `throw` end it, called by the loop."""

    def __init__(self):
        self.hub, self.loop, self.task, self.ready = hub(), local.loop, getcurrent(), 0

    def until_woken(self, timeout=None):
        timer = None if timeout is None else self.loop.call_later(max(timeout, 0), self.wake)
        try:
            while self.task is not None:
                self.hub.switch()
        finally:
            self.task = None  # later calls find no task
            if timer is not None:
                timer.cancel()
        return self.ready

    def wake(self, ready=0):
        self.ready |= ready
        self.loop.call_soon(self.throw, None)  # the socket's other direction may be ready too

    def throw(self, error):
        task, self.task = self.task, None
        if task is not None:
            task.switch() if error is None else task.throw(error)


class Waiter:
    fd, sleep = -1, None

    def wait(self, fd, events, timeout):
        if self.fd < 0:
            self.fd = os.dup(fd)  # libpq may close the socket, and its number be reused
        self.sleep, loop, fd = Sleep(), local.loop, self.fd
        try:
            if events & READ:
                loop.add_reader(fd, self.sleep.wake, READ)
            if events & WRITE:
                loop.add_writer(fd, self.sleep.wake, WRITE)
            return self.sleep.until_woken(timeout)
        finally:
            self.sleep = None
            loop.remove_reader(fd)
            loop.remove_writer(fd)

    def interrupt(self, error):
        if (sleep := self.sleep) is not None:
            sleep.loop.call_soon_threadsafe(sleep.throw, error)

    def fileno(self):
        return self.fd

    def close(self):
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


class Event:
    def __init__(self):
        self.flag, self.sleeps = False, []

    def set(self):
        self.flag = True
        for sleep in list(self.sleeps):
            sleep.loop.call_soon_threadsafe(sleep.throw, None)

    def is_set(self):
        return self.flag

    def wait(self, timeout=None):
        sleep = Sleep()
        self.sleeps.append(sleep)
        try:
            if not self.flag:  # another thread may have set it before the append
                sleep.until_woken(timeout)
        finally:
            self.sleeps.remove(sleep)
        return self.flag


class Task(Event):
    join = Event.wait

    def __init__(self, fn, *args):
        super().__init__()
        self.greenlet = greenlet(self.run, hub())
        self.loop = local.loop
        self.loop.call_soon(self.greenlet.switch, fn, args)

    def run(self, fn, args):
        try:
            fn(*args)
        except GreenletExit:
            pass
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            self.set()

    def kill(self):
        self.loop.call_soon(self.end)

    def end(self):
        self.greenlet.throw()
        if self.greenlet.dead:  # a greenlet that has not started never reaches `run`
            self.set()


class Backend:
    name = "aiogreen"
    exits = (GreenletExit,)
    capabilities = frozenset({"kill", "hub", "lazy_spawn"})
    current, waiter, event, spawn = staticmethod(getcurrent), Waiter, Event, Task

    def can_wait(self):
        return getcurrent() is not getattr(local, "hub", None)

    def sleep(self, seconds):
        Sleep().until_woken(seconds)

    def pause(self):
        self.sleep(0)

    def in_thread(self, fn, *args):
        sleep = Sleep()
        job = sleep.loop.run_in_executor(None, fn, *args)
        job.add_done_callback(lambda job: (job.exception(), sleep.throw(None)))
        sleep.until_woken()
        return job.result()

    def resolve(self, host, port):
        return self.in_thread(socket.getaddrinfo, host, port, 0, socket.SOCK_STREAM)


backend = Backend()
