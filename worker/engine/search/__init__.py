"""The search for a recipe: what is tried next, what is kept, and why."""
