"""Node-link pictures, laid out by Graphviz."""
