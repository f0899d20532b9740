"""Importing this makes the project ready; models can be imported after it."""

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.frameworks.django_project.settings")
django.setup()
