"""Making connections: hosts in turn, the green classes, the hook in psycopg2."""
