"""What Lathe is measured against: tools that turn an ONNX file into a faster one."""
