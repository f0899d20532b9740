"""A small Django project on the server of GREENPG_DSN, and the checks that run inside it."""
