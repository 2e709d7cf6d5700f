"""Inputs that come and go: neutralizers in layers, in continuous time and around learning networks."""
