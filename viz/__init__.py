"""Pictures of graphs, gates and gradients: people see backpropagation through time.

`draw` shows a graph at any level of detail, `gradient` the gradient that flows back
through time, `gates` the gates over time.  Each returns a `Picture`.
"""

from .backflow import gradient
from .draw import draw
from .heat import gates
from .render import Picture, font_directory
from .style import Scale

__all__ = ["Picture", "Scale", "draw", "font_directory", "gates", "gradient"]
