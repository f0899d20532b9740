"""A small Django project, on the server of GREENPG_DSN, and what is checked inside it."""
