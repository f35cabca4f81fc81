"""Record, replay, go backwards: the one adapter between machines and traces."""
