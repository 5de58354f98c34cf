"""ACInterp: AnimateAnyone's reference network and denoiser, with a background guider, for transitions of 16 frames."""

from export.models.acinterp.config import GuiderConfig, MotionConfig, UNetConfig, block_names
from export.models.acinterp.guider import Guider
from export.models.acinterp.unet import Denoiser, ReferenceNetwork

__all__ = ["Denoiser", "Guider", "GuiderConfig", "MotionConfig", "ReferenceNetwork", "UNetConfig", "block_names"]
