"""How well an embedding finds the motion that belongs to speech: the paper's measures, with their true floor."""
