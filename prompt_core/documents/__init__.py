"""The border: documents from outside are read within bounds and checked against a schema before anything uses them."""
