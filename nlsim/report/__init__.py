"""Figures; the only place that knows matplotlib."""
