"""What one runs: the command line, training, benchmarks."""
