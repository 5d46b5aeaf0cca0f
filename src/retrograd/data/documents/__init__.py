"""Documents as people have them, in text, Markdown, HTML and PDF files, cut into passages."""
