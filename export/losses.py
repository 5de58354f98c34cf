"""The two contrastive losses of TANGO (arXiv 2410.04221, section 3.2) as in the release, with their accuracies.

Low level: a frame of one modality must find the frames around the same moment of the other one. Positives are frames
t - 4 .. t + 3, negatives the 12 frames before and the 12 after that block in the same clip, in both directions.
High level: the summary of a window of speech must find the summary of its own motion among those of the batch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["NEGATIVE_FRAMES", "POSITIVE_FRAMES", "TEMPERATURE", "global_loss", "local_loss"]

TEMPERATURE = 0.1
POSITIVE_FRAMES = 4
NEGATIVE_FRAMES = 12


def local_loss(first: Tensor, second: Tensor, temperature: float = TEMPERATURE) -> tuple[Tensor, Tensor]:
    """Frame-wise contrastive loss, symmetric in its two sequences.

    Args:
        first, second: (batch, frames, channels), any scale: they are normalised here.
        temperature: divisor of the cosines.

    Returns:
        The loss, a scalar with gradients, and the share of (frame, sample, direction) whose best frame is a positive.
    """
    scores = F.normalize(first, dim=-1) @ F.normalize(second, dim=-1).transpose(1, 2) / temperature
    n_frames = scores.shape[1]
    frame = torch.arange(n_frames, device=scores.device)
    offset = frame[None, :] - frame[:, None]
    positive = (offset >= -POSITIVE_FRAMES) & (offset < POSITIVE_FRAMES)
    reach = POSITIVE_FRAMES + NEGATIVE_FRAMES
    considered = (offset >= -reach) & (offset < reach)
    # the same masks in both directions: the block is relative to the query frame
    both = torch.stack([scores, scores.transpose(1, 2)])
    everything = both.masked_fill(~considered, -torch.inf)
    loss = everything.logsumexp(-1) - both.masked_fill(~positive, -torch.inf).logsumexp(-1)
    best = everything.argmax(-1)
    hit = positive.expand(*best.shape, n_frames).gather(-1, best[..., None])
    return loss.mean(), hit.float().mean()


def global_loss(audio: Tensor, motion: Tensor, temperature: float = TEMPERATURE) -> tuple[Tensor, Tensor]:
    """In-batch InfoNCE from speech to motion, one direction only as in the release.

    Args:
        audio, motion: (batch, channels), row i of one belongs to row i of the other; any scale.
        temperature: divisor of the cosines.

    Returns:
        The loss, a scalar with gradients, and the share of rows of audio whose nearest row of motion is their own.
    """
    scores = F.normalize(audio, dim=-1) @ F.normalize(motion, dim=-1).T / temperature
    own = torch.arange(len(scores), device=scores.device)
    return F.cross_entropy(scores, own), (scores.argmax(1) == own).float().mean()
