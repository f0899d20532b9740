"""Sets the project up at import; models can be imported afterwards."""

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.frameworks.django_project.settings")
django.setup()

# not before: the settings choose the driver
from django.db.backends.postgresql import psycopg_any  # noqa: E402

is_psycopg3, IsolationLevel = psycopg_any.is_psycopg3, psycopg_any.IsolationLevel
