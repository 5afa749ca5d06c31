"""A trained model learns to speak in one more voice, from a few minutes of it."""
