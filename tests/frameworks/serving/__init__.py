"""Applications under gunicorn, and clients that put load on them."""
