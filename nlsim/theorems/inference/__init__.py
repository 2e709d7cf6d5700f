"""Theorems of inference learning."""
