"""Parts of `benchmarks/speed.py`, one measure each."""
