"""Applications under gunicorn, and the client that loads them."""
