"""SQLAlchemy's tests, imported so that pytest collects them here."""

from sqlalchemy.testing.suite import *  # noqa: F403
