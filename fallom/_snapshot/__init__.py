"""The snapshot: payloads to entries, published whole, read by one SELECT."""
