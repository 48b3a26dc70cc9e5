"""The network itself at every level of detail, and what the compiler makes of it."""
