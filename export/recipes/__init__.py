"""How each kind of bundle is made from its networks."""
