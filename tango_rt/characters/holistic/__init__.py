"""MediaPipe Holistic in NumPy and OpenCV, with MediaPipe's own networks: body, hands, face and person mask in video.

The graph (regions, tracking rules, hand re-crop, heat-map refinement) follows release 0.10.14 at model complexity 1
with smoothing off, as far as the project uses it: no world landmarks, no iris, one face. Copyright of the original:
The MediaPipe Authors, Apache-2.0 (NOTICE).

    holistic    one frame in, everything found out
    body, hands, face    one or two networks each, with their rules for the next region
    detection   single-shot detectors: boxes and key points of bodies and faces
    regions     rotated squares of a frame: cropping, projecting back
    runner      the networks on LiteRT
"""
