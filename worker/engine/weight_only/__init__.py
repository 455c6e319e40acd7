"""Weights in few bits, arithmetic in float: which constants are weights, how they are kept, which kernels read them."""
