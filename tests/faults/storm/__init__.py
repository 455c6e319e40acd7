"""Jobs run while faults strike, and what must hold is checked: races of a cancel and the end of an attempt."""
