"""Networks in torch, as published and at small size."""
