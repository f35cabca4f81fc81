"""Drivers at the bottom of the graph, and those that only pass requests on."""
