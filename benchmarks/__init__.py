"""Benchmarks of fallom against its peers and the floor; see ``scripts/bench --list``."""
