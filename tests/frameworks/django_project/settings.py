"""The project's settings; environment variables set the driver, the engine and more OPTIONS."""

import json
import os

from psycopg2.extensions import parse_dsn

from greenpg.backend import current
from greenpg.django import use_psycopg2

_ENGINE = os.environ.get("DJANGO_ENGINE", "greenpg.django")

if os.environ.get("DJANGO_DRIVER", "psycopg2") == "psycopg2":
    use_psycopg2()
elif not _ENGINE.startswith("greenpg") and "hub" in current().capabilities:
    from greenpg import psycopg3

    psycopg3.patch()

_server = parse_dsn(os.environ["GREENPG_DSN"])
_secrets = {"passfile": _server["passfile"]} if "passfile" in _server else {}

DATABASES = {
    "default": {
        "ENGINE": _ENGINE,
        "NAME": _server["dbname"],
        "USER": _server.get("user", ""),
        "PASSWORD": _server.get("password", ""),
        "HOST": _server.get("host", ""),
        "PORT": _server.get("port", ""),
        "OPTIONS": {**_secrets, **json.loads(os.environ.get("DJANGO_OPTIONS", "{}"))},
    }
}
INSTALLED_APPS = ["tests.frameworks.django_project"]
ROOT_URLCONF = "tests.frameworks.django_project.urls"
SECRET_KEY = "a test's"
ALLOWED_HOSTS = ["*"]
USE_TZ = True
TIME_ZONE = "Europe/Berlin"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
