"""Hand a run's model over to other programs: one file a kind, and one line for it in `export.EXPORTS`."""
