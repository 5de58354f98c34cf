"""From video to a pack: people, poses, shots, takes; inspection and reports."""
