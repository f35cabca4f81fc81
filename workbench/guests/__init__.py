"""Guests to boot: the built-in one, which comes with the package, and real ones, which are fetched."""
