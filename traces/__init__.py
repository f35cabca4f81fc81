"""What a run is, in one SQLite file: knows nothing of machines or users."""
