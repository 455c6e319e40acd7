"""Setting weights to zero: places (what is a weight, and along which axis it is summed), thresholds, and patterns."""
