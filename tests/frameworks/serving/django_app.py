"""A Django application with Django's own backend, made green by the patch."""

from __future__ import annotations

import os
from time import monotonic

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import connection
from django.http import HttpRequest, JsonResponse
from django.urls import path
from psycopg2.extensions import parse_dsn

from greenpg_gevent import ConnectionPool, patch_psycopg

from .marks import marked

patch_psycopg()
given = {**parse_dsn(os.environ["APP_DSN"]), "application_name": f"{os.environ['APP_NAME']}-django"}
pool = ConnectionPool(kwargs=given, min_size=4, max_size=20)
settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": given["dbname"],
            "OPTIONS": {name: value for name, value in given.items() if name != "dbname"},
        }
    },
)


def quick(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"pid": os.getpid()})


def sleep(request: HttpRequest, seconds: str) -> JsonResponse:
    began = monotonic()
    with pool.connection() as conn, conn.cursor() as cur:
        got = monotonic()
        cur.execute("select pg_sleep(%s)", (float(seconds),))
    return JsonResponse({"pid": os.getpid(), "began": began, "got": got})


def own(request: HttpRequest, seconds: str) -> JsonResponse:
    """Use the connection that Django opens for each request."""
    with connection.cursor() as cur:
        cur.execute("select pg_sleep(%s)", (float(seconds),))
    return JsonResponse({"pid": os.getpid()})


urlpatterns = [
    path("quick", quick),
    path("sleep/<str:seconds>", sleep),
    path("own/<str:seconds>", own),
]
app = marked(get_wsgi_application())
