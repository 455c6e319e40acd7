"""Why a node or a weight stays as it is, in the words of reports: those that several passes have to say."""

from collections.abc import Mapping

EXCLUDED = "excluded by the recipe"
NOT_ASKED = "of an operator that the recipe leaves out"
INSIDE_FUNCTION = "inside a function of the model"
NO_ACTIVATION = "a product of constants alone"
CONTROL_FLOW = "read inside control flow"


def counted(operators: Mapping[str, int]) -> str:
    """`2 Add, 1 Conv`: how many nodes of each operator, where there are any."""
    return ", ".join(f"{count} {operator}" for operator, count in sorted(operators.items()) if count > 0)
