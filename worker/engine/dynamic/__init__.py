"""INT8 weights and activations that are quantized at run time, each by its own range in that call."""
