"""What an operator demands of the sandbox (`LATHE_RUNNER_SANDBOX`), held against what this machine gives."""

from collections.abc import Mapping

from app.health.confinement import open_layers, remedy

AS_GOOD_AS_IT_GETS, EVERY_LAYER = "best", "required"


def unmet(demand: str, held: Mapping[str, bool]) -> str | None:
    """Why a worker must not start where only `held` is confined; None where it may.

    `demand` is `best` (whatever holds is enough), `required` (every layer), or the names of layers between commas.
    """
    if demand == AS_GOOD_AS_IT_GETS:
        return None
    names = list(held) if demand == EVERY_LAYER else demand.split(",")
    unknown = [name for name in names if name not in held]
    if unknown:
        return (
            f"LATHE_RUNNER_SANDBOX names no layer of the sandbox by {', '.join(unknown)}; "
            f"they are {', '.join(sorted(held))}."
        )
    missing = open_layers({name: held[name] for name in names})
    if not missing:
        return None
    return (
        f"LATHE_RUNNER_SANDBOX={demand}, and here these layers of the sandbox do not hold: {', '.join(missing)}. "
        f"{remedy(missing)} Or demand less: `best` takes what there is, and /readyz says what that leaves."
    )
