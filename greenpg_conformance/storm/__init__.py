"""Random interrupts of any operation: no data, slot or connection is lost."""
