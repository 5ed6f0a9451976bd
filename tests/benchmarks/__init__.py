"""How fast the engine is, as ratios to references that are measured in the same run: `python -m tests.benchmarks`."""
