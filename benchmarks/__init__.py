"""What distgate costs beside the bare tools it stands on, measured on this machine in one run."""
