"""Video in and out: sizes, colours, closed groups of pictures, mp4."""
