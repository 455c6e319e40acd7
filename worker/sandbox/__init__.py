"""How the process that opens untrusted files is confined.

`spawn` starts it, `kill_group` and `terminate` end it with everything it started, `confinement` says which layers this
machine really holds, `unmet` whether that is what an operator demands. What the layers are stands in `launcher`.
"""

from worker.sandbox.child import Limits, kill_group, spawn, terminate
from worker.sandbox.confinement import confinement
from worker.sandbox.demand import AS_GOOD_AS_IT_GETS, unmet
from worker.sandbox.memory_groups import MemoryGroup, memory_group

__all__ = [
    "AS_GOOD_AS_IT_GETS",
    "Limits",
    "MemoryGroup",
    "confinement",
    "kill_group",
    "memory_group",
    "spawn",
    "terminate",
    "unmet",
]
