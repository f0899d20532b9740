"""The settings that docs/gunicorn.md recommends; APP_LATE leaves the patch to the workers."""

import os
from importlib import import_module

from gevent import monkey

if "APP_LATE" not in os.environ:
    monkey.patch_all()

preload_app = True
worker_class = "gevent"
workers = 2
keepalive = 30
control_socket_disable = True


def worker_int(worker):
    import_module(os.environ["APP_MODULE"]).pool.close(0)
