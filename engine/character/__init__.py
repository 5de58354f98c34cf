"""The pack of a character: its files, and speech performed with it as a path of nodes."""
