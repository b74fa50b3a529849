"""Weights, their cards, and the sample pictures."""
