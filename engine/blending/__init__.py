"""The frames around a cut: morphs, arms, and the diffusion model ACInterp."""
