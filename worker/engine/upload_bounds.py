"""What an upload may grow to, whatever its format."""

# Deflate packs 1:1032, so a small upload may unpack to far more than the service takes in an honest one.
MAX_UNPACKED_BYTES = 32 << 30
