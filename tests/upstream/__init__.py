"""Runs psycopg2's own, unmodified test suite with greenpg patched in."""
