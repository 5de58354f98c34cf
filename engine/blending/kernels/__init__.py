"""Numba kernels of the transition blenders; they do not check their arguments.

They work on two rasters. On the *grid*, a reduced raster of the work box, flows are measured and carried to the instant
of the wanted frame; only the last step, `pictures.mix`, touches the pixels of the two pictures. Grid kernels measure
in grid pixels.
"""
