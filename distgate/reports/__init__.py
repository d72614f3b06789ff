"""Reports of runs: one module for each channel, made from the ledger's messages alone."""
