"""Gradients through retrieval: the retriever and the generator of a RAG model, trained as one model."""
