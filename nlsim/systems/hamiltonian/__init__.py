"""Hamiltonian learning: state and costate equations of a network with a propagation speed."""
