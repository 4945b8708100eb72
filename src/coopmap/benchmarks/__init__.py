"""Benchmarks behind ``python -m coopmap.bench``."""
