"""Benchmarks: each measures its physical limit and its peers in the same run and prints one JSON line per case."""
