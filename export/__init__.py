"""Networks from checkpoint to engine: the only room where torch may be imported."""
