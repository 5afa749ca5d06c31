"""Export: a folder that loads without this package, in transformers and in onnxruntime. See docs/export.md."""
