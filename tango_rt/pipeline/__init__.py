"""From an opened character to pictures: the live object, transitions, renders."""
