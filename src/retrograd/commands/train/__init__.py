"""``retrograd train``."""
