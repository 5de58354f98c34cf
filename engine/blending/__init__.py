"""The frames around a cut: fades, morphs, and the diffusion model ACInterp."""
