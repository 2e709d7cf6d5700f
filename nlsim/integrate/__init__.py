"""Steppers (one step), control (how long) and the loop that ends with a named ending."""
