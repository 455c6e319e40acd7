"""Structured pruning: what of a network can be taken out as a whole, which of it, and how the rest makes up for it."""
