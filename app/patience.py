"""How long somebody at the other end of a connection is waited for."""

from dataclasses import dataclass, field


@dataclass
class Patience:
    """An account in seconds: it begins with the grace, waiting spends it, and each byte earns what the slowest rate
    gives it, up to the grace again. So a pause is allowed, and a fast beginning pays for no endless rest.
    """

    rate: int
    """Bytes a second; 0 waits for ever."""
    grace: float
    _left: float = field(init=False)

    def __post_init__(self) -> None:
        self._left = self.grace

    @property
    def seconds(self) -> float | None:
        """How long the next wait may take; None: as long as it likes."""
        return self._left if self.rate else None

    def account(self, waited_seconds: float, count: int) -> None:
        """So many bytes came or went after a wait."""
        self._left = min(self.grace, self._left - waited_seconds + count / (self.rate or 1))
