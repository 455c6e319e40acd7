"""Weights as products of smaller ones: which, of what rank, and whether that pays."""
