"""Charts over time: bars, heat maps, curves."""
