"""Benchmarks that travel with the product: figures side by side, with their goals, out of real runs only."""
