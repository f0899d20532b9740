"""Random interrupts: whatever they hit, nothing is lost."""
