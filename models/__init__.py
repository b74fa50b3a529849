"""Media <-> integers: one file per system."""
