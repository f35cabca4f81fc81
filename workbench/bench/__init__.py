"""Benchmarks as ratios: the peer's run and ours in turn, on the same work, in one session."""
