"""Propositions of the papers, each with evidence tied to the code that runs."""
