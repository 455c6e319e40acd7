"""Why a node or a weight stays as it is, in the words of reports: those that several passes have to say."""

EXCLUDED = "excluded by the recipe"
NOT_ASKED = "of an operator that the recipe leaves out"
INSIDE_FUNCTION = "inside a function of the model"
NO_ACTIVATION = "a product of constants alone"
CONTROL_FLOW = "read inside control flow"
