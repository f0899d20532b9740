"""Borrowers of one pool, interrupted at random: no slot is lost or gained, no answer mixed up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from random import Random
from typing import Any, Final

from greenpg.errors import PoolTimeout
from greenpg.pool import ConnectionPool
from greenpg_conformance.toolkit.jobs import Job
from greenpg_conformance.toolkit.machine import Patience

MAX: Final = 4
BORROWERS: Final = 12
PATIENCE: Final = 15.0
BREATH: Final = 0.002
SHARES: Final = (1, 10)  # of timeouts: some pass in the line, some in the block and its end
STATEMENTS: Final = (
    "select 1",
    "select pg_sleep(0.002)",
    "select 1/0",
    "select generate_series(1, 300)",
)
SESSIONS: Final = "select count(*) from pg_stat_activity where application_name = %s"


class PoolStorm:
    """Plays rounds; each interrupts one borrower. `timeout` is the library's own, if it has one."""

    def __init__(
        self,
        backend: Any,
        dsn: str,
        sessions: Callable[[], int],
        timeout: Any,
        seed: int,
        pool_backend: Any = None,
        driver: str = "psycopg2",
    ) -> None:
        self._backend = backend
        self._sessions = sessions
        self._timeout = timeout
        self._random = Random(seed)
        self._jobs: list[Job] = []
        self._over = False
        errors = import_module(f"{driver}.errors")
        self._expected = errors.DivisionByZero, errors.InFailedSqlTransaction
        self.served = 0
        self.interrupted = 0
        hooks: Any = dict.fromkeys(("configure", "check", "reset"), self._hook)
        sizes: Any = {"min_size": 1, "max_size": MAX, "max_uses": 40}
        self.pool = ConnectionPool(
            dsn,
            driver=driver,
            backend=pool_backend or backend,
            timeout=PATIENCE,
            **sizes,
            **hooks,
        )

    def _hook(self, conn: Any) -> None:
        """Stand for the user's configure, check and reset; now and then it fails."""
        if self._random.random() < 0.02:
            raise LookupError
        if self._random.random() < 0.3:
            with conn.cursor() as cur:
                cur.execute("select pg_sleep(0.001)")
            conn.rollback()

    def play(self, rounds: int) -> None:
        """Interrupt so often, then see that the pool is whole."""
        with self._borrowers():
            for number in range(rounds):
                self._interrupt(number)
        self._settle()

    @contextmanager
    def _borrowers(self) -> Iterator[None]:
        self._over = False
        self._jobs = [Job(self._backend, self._borrow, ()) for _ in range(BORROWERS)]
        try:
            yield
        finally:
            self._over = True
            for job in self._jobs:
                self._judge(job)

    def _interrupt(self, number: int) -> None:
        self._backend.sleep(self._random.expovariate(1 / BREATH))
        place = self._random.randrange(BORROWERS)
        job = self._jobs[place]
        if "kill" in self._backend.capabilities:
            job.kill()
            self.interrupted += 1
            self._jobs[place] = Job(self._backend, self._borrow, ())
            self._judge(job)
        if number % 200 == 199:
            self.pool.drain()
        if number % 20 == 0:
            count = self._sessions()
            assert count <= MAX, f"{count} sessions of at most {MAX}"

    def _judge(self, job: Job) -> None:
        """Fail unless a borrower ended by its own kill, or not at all by an error."""
        job.join(PATIENCE * 2)
        assert job.error is None or isinstance(job.error, self._backend.exits), repr(job.error)

    def _borrow(self) -> None:
        while not self._over:
            if self._timeout is None or self._random.random() < 0.5:
                self._once()
            else:
                seconds = self._random.expovariate(1 / BREATH) * self._random.choice(SHARES)
                self._once_within(self._timeout(seconds))

    def _once_within(self, timeout: Any) -> None:
        try:
            with timeout:
                self._once()
        except BaseException as error:
            if error is not timeout:
                raise

    def _once(self) -> None:
        with suppress(*self._expected):
            with self.pool.connection() as conn:
                for _ in range(self._random.randrange(3)):
                    self._ask(conn)
            self.served += 1

    def _ask(self, conn: Any) -> None:
        """Ask for a random number, so that another task's answer is noticed."""
        token = self._random.randrange(1 << 30)
        with conn.cursor() as cur:
            cur.execute(self._random.choice(STATEMENTS))
            cur.execute("select %s::int", (token,))
            assert cur.fetchall() == [(token,)], "another borrower's answer"

    def _settle(self) -> None:
        """See that all slots can be had at once, and not one more."""
        patience = Patience(PATIENCE)
        while (found := self.pool.get_stats())["requests_waiting"] or (
            found["pool_size"] > found["pool_available"]
        ):
            assert patience.left(), f"slots do not come to rest: {found}"
            self._backend.sleep(BREATH)
        assert found["pool_size"] <= MAX
        conns = [self.pool.getconn() for _ in range(MAX)]
        try:
            with suppress(PoolTimeout):
                self.pool.getconn(timeout=0)
                raise AssertionError("more connections than max_size")
            for conn in conns:
                cur = conn.cursor()
                cur.execute("select 1")
                assert cur.fetchall() == [(1,)]
        finally:
            for conn in conns:
                self.pool.putconn(conn)

    def close(self) -> None:
        """Close the pool."""
        self.pool.close()
