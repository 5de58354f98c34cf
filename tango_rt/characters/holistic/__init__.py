"""MediaPipe Holistic in NumPy and OpenCV, over MediaPipe's own networks: body, hands, face and person mask in video.

The graph (regions, tracking rules, hand re-crop, heat-map refinement) follows release 0.10.14 at model complexity 1
with smoothing off, as far as the project uses it: no world landmarks, no iris, one face. Copyright of the original:
The MediaPipe Authors, Apache-2.0 (NOTICE).

    holistic    one frame in, everything found out; which region is looked at next
    body, hands, face    one network or two each, and the rules that go with them
    detection   single-shot detectors: boxes and key points of bodies and faces
    regions     turned squares of a frame: cropping, projecting back
    runner      the networks on LiteRT
"""
