"""Background jobs: backup, stream, commit, mirror; their life cycle and transactions."""
