"""Inference engine: arrays in, arrays out. No torch, no media, no network."""
