"""Celery tasks, and the worker that runs them."""
