"""What the driver keeps on every backend."""
