"""SQLAlchemy's own suite for dialects, run over psycopg2 as it is and over greenpg."""
