"""What a model says of a photo, as HTML that needs nothing else."""
