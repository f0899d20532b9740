"""The demo: many tasks, few connections, and a ticker that must not stall."""
