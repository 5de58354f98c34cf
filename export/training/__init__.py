"""Training of the small embedding: augmentation, batches, the loop, adaptation to a person."""
