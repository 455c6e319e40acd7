"""The faults, by what they strike."""

from tests.faults.storm.strikes.bombs import MEMORY
from tests.faults.storm.strikes.disks import DISKS
from tests.faults.storm.strikes.messages import MESSAGES
from tests.faults.storm.strikes.processes import PROCESSES
from tests.faults.storm.strikes.servers import SERVERS
from tests.faults.storm.strikes.site import Broken, Fault, Missed, NotPossible, Site

FAULTS = {fault.name: fault for fault in (*PROCESSES, *SERVERS, *MESSAGES, *DISKS, *MEMORY)}

__all__ = ["FAULTS", "Broken", "Fault", "Missed", "NotPossible", "Site"]
