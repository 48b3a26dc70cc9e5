"""HTML files in which networks learn."""
