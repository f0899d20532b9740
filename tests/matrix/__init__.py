"""A smoke program under other Pythons, and under the oldest and newest releases: `make matrix`."""
