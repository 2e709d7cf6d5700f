"""Vector fields, energies and jumps as pure functions, and the signals that drive them."""
