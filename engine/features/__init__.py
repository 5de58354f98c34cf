"""Speech and motion as features a frame: descriptors, embeddings, the fit to a person, and what each is worth."""
