"""How each kind of bundle is made of its networks."""
