"""Scorers on held-out data."""
