"""What a graph says: its steps, gates and states, and the ways that values and gradients take."""
