"""How far samples are read where time may run short."""

import math
from dataclasses import dataclass

from worker.engine.pass_contract import PassContext


@dataclass
class Extent:
    """How many samples are read: given, or found out by the reader, who reads on for so many `seconds`, and makes one
    call at least.
    """

    samples: int | None = None
    seconds: float = math.inf

    def ends(self, read: int, spent_seconds: float, context: PassContext) -> bool:
        """Whether a reader who has come so far stops there. That time made it stop is remembered."""
        if self.samples is None and spent_seconds > self.seconds:
            self.samples, context.haste.cut_short = read, True
        return self.samples is not None and read >= self.samples
