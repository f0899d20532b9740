"""Sets the project up at import; models can be imported afterwards."""

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.frameworks.django_project.settings")
django.setup()
