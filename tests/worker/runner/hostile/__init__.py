"""Files that must be refused, each with the code of its refusal."""
