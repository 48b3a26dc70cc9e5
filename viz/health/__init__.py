"""What is wrong with a network, and how it changes while it learns."""
