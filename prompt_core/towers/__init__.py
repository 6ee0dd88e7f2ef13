"""Where a CLIP comes from: building open_clip's models, their downloads, and what each of them can do."""
