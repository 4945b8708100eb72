"""Loops over pixels that whole-array operations are too slow for, compiled by Numba.

What is left of a view is memory traffic: a compiled loop reads its input once, where numpy writes and reads an array of
the image's size for every operation. Modules of this package import Numba, which takes 0.3 s; import them in the
functions that call them.
"""
