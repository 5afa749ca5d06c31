"""The one training loop and one short file a stage."""
