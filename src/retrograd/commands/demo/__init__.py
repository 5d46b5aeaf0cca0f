"""``retrograd demo``."""
