"""The gradient: back through time, by gate, by weight, by loss, and side by side."""
