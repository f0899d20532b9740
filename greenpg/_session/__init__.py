"""One connection as tasks share it: its lock, deadlines and interrupts, whatever the driver."""
