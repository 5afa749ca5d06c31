"""What is in somebody's data, and what of it would stop or spoil a training."""
