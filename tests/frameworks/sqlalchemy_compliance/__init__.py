"""SQLAlchemy's own suite for dialects, run on stock psycopg2 and on greenpg."""
