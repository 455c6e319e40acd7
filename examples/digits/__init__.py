"""A small CNN on scikit-learn's handwritten digits."""
