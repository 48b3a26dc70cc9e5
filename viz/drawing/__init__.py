"""How things are drawn: style and scale, Graphviz, positions, legends."""
