"""Five hundred tasks, random interrupts and lost sessions: no answer is mixed up, no row lost."""

from __future__ import annotations

from collections import Counter
from random import Random

import psycopg2
import pytest

from greenpg.backend import current
from tests.db.multiplexer.conftest import until

TASKS = 500
ROUNDS = 60
SEED = 20261202


class Storm:
    """Tasks that ask and insert until the end, each row once, and what was acknowledged."""

    def __init__(self, mux, table):
        self.mux, self.table = mux, table
        self.over = False
        self.acknowledged: list[int] = []
        self.tried = 0
        self.answered = self.failed = 0
        self.mixed: list[object] = []

    def work(self, number):
        random = Random(SEED + number)
        while not self.over:
            self.tried += 1
            mine = self.tried
            try:
                self._ask(random, mine)
            except psycopg2.Error:
                self.failed += 1
                current().sleep(0.01)

    def _ask(self, random, mine):
        kind = random.random()
        if kind < 0.4:
            insert = f"insert into {self.table} values (%s) returning n"
            found = self.mux.execute(insert, (mine,)).fetchone()[0]
            self.acknowledged.append(mine)
        elif kind < 0.5:
            with self.mux.deadline(0.001 + 0.02 * random.random()):
                found = self.mux.execute("select %s from pg_sleep(0.005)", (mine,)).fetchone()[0]
        elif kind < 0.55:
            self.mux.execute("select 1 / 0, %s", (mine,))
            found = None
        elif kind < 0.6:
            asked = [(mine,), (mine,), (mine,)]
            rows = self.mux.executemany("select %s", asked)
            found = mine if [row.fetchone() for row in rows] == asked else rows
        else:
            found = self.mux.execute("select %s", (mine,)).fetchone()[0]
        self.answered += 1
        if found != mine:
            self.mixed.append((mine, found))


def _disturb(storm, jobs, spawn, auto, random):
    if random.random() < 0.2:
        cur = auto.cursor()
        cur.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where pid <> pg_backend_pid() and application_name = 'storm'"
            " order by random() limit 1"
        )
    elif "kill" in current().capabilities:
        for _ in range(5):
            place = random.randrange(len(jobs))
            jobs[place].kill()
            jobs[place] = spawn(storm.work, TASKS + storm.tried)


@pytest.mark.timeout(120)
def test_each_answer_belongs_to_its_question_and_each_row_is_there_once(
    make, create, spawn, auto, dsn
):
    table = create("(n int)")
    storm = Storm(make(f"{dsn} application_name=storm"), table)
    tasks = TASKS if "hub" in current().capabilities else 40
    random = Random(SEED)
    jobs = [spawn(storm.work, n) for n in range(tasks)]

    for _ in range(ROUNDS):
        current().sleep(0.02)
        _disturb(storm, jobs, spawn, auto, random)
    storm.over = True
    until(lambda: all(job.ended for job in jobs), "all tasks have ended")

    cur = auto.cursor()
    cur.execute(f"select n from {table}")
    rows = Counter(n for (n,) in cur.fetchall())
    assert not storm.mixed
    assert {n for n in storm.acknowledged if rows[n] != 1} == set()
    assert max(rows.values()) == 1
    assert storm.answered > tasks
    assert storm.mux.execute("select 1").fetchone() == (1,)
