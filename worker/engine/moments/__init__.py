"""What nodes with constant weights are fed, kept as moments: what their products need to be changed with least harm."""
