"""Any media in: containers, files joined to one, pipes, one clock for sound and picture."""
