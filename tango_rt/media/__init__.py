"""Reading any media: containers, concatenated files, pipes, one clock for sound and picture."""
