"""A deterministic computer: the state at a position is a function of configuration, images and inputs alone.

Knows nothing of traces, debuggers or users.
"""
