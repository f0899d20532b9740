"""What knows psycopg2's C code: its wait callback, its state, the way back from an interrupt."""
