"""Post-training quantization to 8 bits for ONNX Runtime's kernels: what can run in int8, what should, and how well."""
