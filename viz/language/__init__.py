"""How pictures speak: colours, scale, sentences."""
