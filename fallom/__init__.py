"""fallom."""
