"""What was found in photos, or corrected by a person, in the files of other tools: one module for each format."""
