"""stub"""
from dataclasses import dataclass, field
@dataclass(eq=False)
class Loop:
    label: str = ""
    step_of: dict = field(default_factory=dict)
    names: dict = field(default_factory=dict)
    first: dict = field(default_factory=dict)
def find(graph, learn): return []
