"""Inference learning (predictive coding): activities settle by descending a free energy, then weights jump."""
