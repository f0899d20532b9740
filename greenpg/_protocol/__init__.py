"""libpq and the wire: protocol steps as generators; nothing here waits or knows a session."""
