"""Export: the only room where torch may be imported. Empty until the first network is compiled."""
