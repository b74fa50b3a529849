"""Weights (safetensors), each with its card (JSON)."""
