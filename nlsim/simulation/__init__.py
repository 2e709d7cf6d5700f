"""The composition root: from scenario values to objects, and from objects to a run file."""
