"""The child process: reads a job from standard input, measures it, answers with a line of JSON."""

from __future__ import annotations

import faulthandler
import json
import sys

from ._drivers import DRIVERS
from ._hosts import HOSTS, patch
from ._model import Contender, Job


def main() -> None:
    """Measure what standard input asks for; a hang ends with the stacks of all threads."""
    order = json.load(sys.stdin)
    faulthandler.dump_traceback_later(order["limit"], exit=True)
    contender = Contender(*order["contender"])
    if DRIVERS[contender.driver].patched:
        patch(HOSTS[contender.host])
    # Only now: a workload may import what has to be patched first.
    from .workloads import find

    job = Job(contender, order["dsn"], order["size"])
    sample = find(order["workload"]).measure(job)
    sys.stdout.write("\n" + json.dumps(dict(sample)) + "\n")


if __name__ == "__main__":
    main()
