"""Real data sets as arrays with names and units; nothing is downloaded."""
