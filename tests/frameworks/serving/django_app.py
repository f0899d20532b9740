"""A Django application on greenpg.django's pool; the gunicorn master makes a pool too."""

from __future__ import annotations

import os
from time import monotonic

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import connection
from django.http import HttpRequest, JsonResponse
from django.urls import path
from psycopg2.extensions import parse_dsn

import greenpg
from greenpg.django import use_psycopg2

from .marks import marked, spent

greenpg.use("gevent")
use_psycopg2()
given = {**parse_dsn(os.environ["APP_DSN"]), "application_name": f"{os.environ['APP_NAME']}-django"}
settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    DATABASES={
        "default": {
            "ENGINE": "greenpg.django",
            "NAME": given.pop("dbname"),
            "OPTIONS": {**given, "pool": {"min_size": 4, "max_size": 20}},
        }
    },
)


def quick(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"pid": os.getpid(), **spent()})


def sleep(request: HttpRequest, seconds: str) -> JsonResponse:
    began = monotonic()
    connection.ensure_connection()
    got = monotonic()
    with connection.cursor() as cur:
        cur.execute("select pg_sleep(%s)", (float(seconds),))
    return JsonResponse({"pid": os.getpid(), "began": began, "got": got})


urlpatterns = [path("quick", quick), path("sleep/<str:seconds>", sleep)]
app = marked(get_wsgi_application())
pool = connection.pool
