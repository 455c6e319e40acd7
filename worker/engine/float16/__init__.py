"""A graph in half precision, with islands of float32."""
