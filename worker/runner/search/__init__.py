"""The search for a recipe, carried out: candidates built, measured, accepted and delivered."""
