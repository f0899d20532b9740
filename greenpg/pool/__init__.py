"""Connection pools for green threads."""
