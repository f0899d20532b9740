"""The settings shared by the worker and its clients: messages and results are files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from celery import Celery
from celery.backends.filesystem import FilesystemBackend

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Results", "application"]


class Results(FilesystemBackend):  # type: ignore[misc]  # Celery is not typed
    """Results that are written atomically: complete or not at all."""

    def set(self, key: bytes, value: bytes) -> None:
        super().set(key + b".new", value)
        os.replace(self._filename(key + b".new"), self._filename(key))


def application(folder: Path, outgoing: str = "queue") -> Celery:
    """Return a Celery application whose messages travel through files."""
    for name in ("queue", "outbox", "control", "results"):
        (folder / name).mkdir(exist_ok=True)
    app = Celery(
        "working", broker="filesystem://", backend=f"{__name__}:Results+file://{folder}/results"
    )
    app.conf.update(
        broker_transport_options={
            "data_folder_in": f"{folder}/queue",
            "data_folder_out": f"{folder}/{outgoing}",
            "control_folder": f"{folder}/control",
            "polling_interval": 0.05,
        },
        task_track_started=True,
        worker_prefetch_multiplier=10,
    )
    return app
