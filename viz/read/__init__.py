"""A graph read as steps, gates, states and taps; nothing here knows colours."""
