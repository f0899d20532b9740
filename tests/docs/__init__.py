"""The documentation does what it says: its programs run, its commands and names exist."""
