"""Asking the trace: fills lazy tables by replaying with probes, and answers SQL and Python."""
