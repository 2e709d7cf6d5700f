"""State, protocols, observables and endings: no physics, no files."""
