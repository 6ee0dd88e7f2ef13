"""A user's photos: which are meant, the loop over them, and what it has found so far."""
