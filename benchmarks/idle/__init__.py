"""A site at which nothing is done, and the bare flow beside it: what benchmarks.overhead measures."""
