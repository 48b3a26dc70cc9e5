"""What a layer holds a leaf as: a parameter or a constant.  Pictures call it by that, and programs notice a change."""

from __future__ import annotations

PARAMETER, CONSTANT = "parameter", "constant"


class Role:
    """A parameter, be it frozen or not, or a constant.

    A layer that lets go of a leaf gives it a new role of the same kind, by which a compiled program that reads
    the leaf notices that another may stand in its place.
    """

    __slots__ = ("kind",)

    def __init__(self, kind: str):
        self.kind = kind


def is_parameter(node) -> bool:
    """Whether it is a leaf that learns, or one that would if its layer had not frozen it."""
    return node.op is None and (node.requires_grad or (node.role is not None and node.role.kind == PARAMETER))


def is_constant(node) -> bool:
    """Whether a layer holds it as a constant: it is neither learned nor an input."""
    return node.role is not None and node.role.kind == CONSTANT
