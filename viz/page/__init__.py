"""HTML files to walk about in."""
