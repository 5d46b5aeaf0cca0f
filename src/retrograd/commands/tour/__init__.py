"""A first sight: a retriever learns while its neighbours are shown."""
