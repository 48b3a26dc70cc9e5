"""Pictures of graphs, gates and gradients: people see backpropagation through time.

`draw` shows a graph at any level of detail, `gradient` the gradient that flows back through time,
`transport` which part of it a step carries back, in numbers, `paths` by which gate it came,
`bptt` which step's loss reaches which step, `direct` what a step's own loss sends,
`weights_by_step` what each step adds to each weight, `gates` the gates over time, `compare`
several networks on one scale, `taps` what is read from where in a network that handles the whole
sequence at once, `attention` where each output looks, `report` what is wrong and what to try,
`rewrites` what the compiler takes out of the loop over the steps, `loops` what a compiled step
runs.  All but `transport` give a `Picture`, `rewrites` one for each rewrite; a `History` records
such views while a network is trained; `page` gives an HTML file to walk about in, `steps` one that
goes back edge by edge, `live` one in which networks learn.  `language` chooses the language of them all.
"""

from .chart.attention import attention
from .chart.bptt import bptt
from .chart.compare import compare
from .chart.direct import direct
from .chart.gates import gates
from .chart.gradient import gradient
from .chart.history import History
from .chart.paths import paths
from .chart.report import Report, report
from .chart.weights import weights_by_step
from .diagram.compiler import loops, rewrites
from .diagram.draw import draw
from .diagram.render import Diagram, font_directory
from .diagram.taps import taps
from .formula.equations import equations
from .language.catalogue import language
from .language.picture import Picture
from .language.scale import Scale
from .live.learner import Learner, learner
from .live.live import live
from .live.stories import LECTURE, Story
from .measure.transport import Transports, transport
from .page.page import Page, page
from .page.steps import Slides, steps

__all__ = [
    "Picture",
    "Diagram",
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
    "steps",
    "Slides",
    "live",
    "Learner",
    "learner",
    "LECTURE",
    "Story",
    "rewrites",
    "loops",
    "font_directory",
    "language",
]
