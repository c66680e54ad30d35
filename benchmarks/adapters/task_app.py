"""A Celery application with a broker of files; fallom is in it if BENCH_TRACING says so."""

from __future__ import annotations

import os

from celery import Celery

if os.environ["BENCH_TRACING"] == "fallom":
    import fallom

    fallom.init()

_folder = os.environ["BENCH_BROKER"]
app = Celery(
    "task_app",
    broker="filesystem://",
    broker_transport_options={
        "data_folder_in": _folder,
        "data_folder_out": _folder,
        "control_folder": _folder,
        "polling_interval": 0.05,  # a broker that is no folder would wake it at once
    },
)
