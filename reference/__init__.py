"""The hand-derived truth: layers, heads, networks and the rounded arithmetic that bounds them."""
