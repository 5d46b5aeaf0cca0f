"""Speed and memory of retrograd against what a user would run instead: ``python -m benchmarks``."""
