"""Facts read off a model, and the refusal of files that cannot be one."""
