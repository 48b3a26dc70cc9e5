"""Equations, printed from the graph."""
