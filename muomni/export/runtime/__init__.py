"""What runs an exported model with onnxruntime alone; `muomni.export.bundle` puts it into the folder."""
