"""Pictures of graphs, gates and gradients: people see backpropagation through time.

`draw` shows a graph at any level of detail, `gradient` the gradient that flows back through time,
`transport` which part of it a step carries back, in numbers, `paths` by which gate it came,
`bptt` which step's loss reaches which step, `direct` what a step's own loss sends,
`weights_by_step` what each step adds to each weight, `gates` the gates over time, `compare`
several networks on one scale, `taps` what is read from where in a network that handles the whole
sequence at once, `attention` where each output looks, `report` what is wrong and what to try,
`rewrites` what the compiler takes out of the loop over the steps, `loops` what a compiled step
runs.  All but `transport` give a `Picture`, `rewrites` one for each rewrite; a `History` records
such views while a network is trained; `page` gives an HTML file to walk about in.
"""

from .drawing.render import Picture, font_directory
from .drawing.style import Scale
from .equations import equations
from .gradients.backflow import gradient
from .gradients.compare import compare
from .gradients.direct import direct
from .gradients.heat import gates
from .gradients.matrix import bptt
from .gradients.parameters import weights_by_step
from .gradients.paths import paths
from .gradients.transport import Transports, transport
from .health.history import History
from .health.report import Report, report
from .html.page import Page, page
from .network.compiler import loops, rewrites
from .network.draw import draw
from .sequences.attention import attention
from .sequences.taps import taps

__all__ = [
    "Picture",
    "Scale",
    "draw",
    "equations",
    "gradient",
    "paths",
    "bptt",
    "transport",
    "Transports",
    "direct",
    "weights_by_step",
    "gates",
    "compare",
    "report",
    "Report",
    "History",
    "taps",
    "attention",
    "page",
    "Page",
    "rewrites",
    "loops",
    "font_directory",
]
