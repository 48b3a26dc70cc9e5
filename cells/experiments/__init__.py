"""Experiments with networks: tasks that tell them apart, training side by side, text as data; no cell knows of them."""
