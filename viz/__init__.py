"""Pictures of graphs, gates and gradients: people see backpropagation through time.

`draw` shows a graph at any level of detail, `gradient` the gradient that flows back
through time, `gates` the gates over time, `taps` what is read from where in a network
that handles the whole sequence at once, `attention` where each output looks, `rewrites`
what the compiler takes out of the loop over the steps, `loops` what a compiled step
runs.  All give a `Picture`, `rewrites` one for each rewrite.
"""

from .attention import attention
from .backflow import gradient
from .compiler import loops, rewrites
from .draw import draw
from .equations import equations
from .heat import gates
from .render import Picture, font_directory
from .style import Scale
from .taps import taps

__all__ = [
    "Picture",
    "Scale",
    "draw",
    "equations",
    "gradient",
    "gates",
    "taps",
    "attention",
    "rewrites",
    "loops",
    "font_directory",
]
