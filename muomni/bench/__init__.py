"""What this machine makes of the model: speeds and memory, each beside the limit of the machine (`muomni bench`)."""
