"""Corpora, shards, tokens: everything that prepares what the model learns from."""
