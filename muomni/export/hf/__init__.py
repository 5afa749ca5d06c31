"""What transformers runs of an exported model; `muomni.export.bundle` puts these files into the folder."""
