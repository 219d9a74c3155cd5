"""Training on several processes, GPUs and nodes: the trainer's only Ray imports are here."""
