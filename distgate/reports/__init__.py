"""What others are told of runs: one module for each way of saying it, made of the ledger's letters alone."""
