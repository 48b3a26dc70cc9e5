"""The command `minigrad`: what a terminal asks for, one module for each word behind it.

A room above all three packages: its modules, and they alone in `minigrad`, know cells and pictures, and nothing but
``python -m minigrad`` imports them.  The examples are these commands too, each with its own text.
A command has ``add_arguments(parser)`` and ``main(options)``, and its docstring is its help.
"""
