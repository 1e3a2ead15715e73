"""What the benchmarks share: processes and their cost, load, and the table at the end."""
