"""How the process that opens untrusted files is confined.

`spawn` starts it, `kill_group` and `terminate` end it with everything it started, `confinement` says which layers this
machine really holds. What the layers are stands in `launcher`.
"""

from worker.sandbox.child import Limits, kill_group, spawn, terminate
from worker.sandbox.confinement import confinement

__all__ = ["Limits", "confinement", "kill_group", "spawn", "terminate"]
