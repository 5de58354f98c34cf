"""From an open character to pictures: the live object, transitions, renders."""
