"""The recipe of ``mini``, the small embedded CLIP; ``tools/build_mini_clip.py`` runs it."""
