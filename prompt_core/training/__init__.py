"""Learning a prompt or another method: recipe, loop, data, selection of the epoch, files of a run."""
