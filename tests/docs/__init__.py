"""Checks of the documentation: its programs run, its commands and names exist."""
