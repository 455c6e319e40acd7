"""Examples: what a user runs against the service."""
