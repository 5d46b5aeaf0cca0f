"""A trained model behind HTTP: the explorer and the service."""
