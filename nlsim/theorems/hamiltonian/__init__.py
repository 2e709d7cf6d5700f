"""Theorems of Hamiltonian learning."""
