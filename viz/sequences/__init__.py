"""Networks over whole sequences: taps, receptive fields and attention."""
