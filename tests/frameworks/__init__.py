"""greenpg inside real frameworks, each in processes of its own: `make frameworks`."""
