"""The translator: guest code becomes host code, and RAM, translations and time are kept beside it."""

from machine.tcg import sources

try:
    from machine.tcg import _core
except ImportError:
    pass  # none was built; the modules that are its border say so when they are imported
else:
    sources.check(_core)
