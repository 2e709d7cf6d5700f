"""Masked inputs, proposition by proposition."""
