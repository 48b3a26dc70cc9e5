"""What is measured on a network that was read: transport, ways, half-lives, faults."""
