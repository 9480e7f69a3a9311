"""Benchmarks: osdisco beside what a user would write by hand, as ratios within one run (`python -m benchmarks -h`)."""
