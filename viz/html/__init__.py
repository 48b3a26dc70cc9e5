"""One self-contained HTML file to walk about in."""
