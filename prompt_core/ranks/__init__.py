"""The processes of one job, which torchrun starts: what they share out, add up and agree on."""
