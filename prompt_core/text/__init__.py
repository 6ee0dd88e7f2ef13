"""The prompted text encoder on open_clip's text towers: the shared prefix once, a few tokens per class."""
