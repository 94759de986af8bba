# SPDX-License-Identifier: Apache-2.0
"""Pixels of the HEALPix sphere: nside = 2**level, angles in degrees, orders "nest", "ring" and "pad_xy".

ang2pix(level, lon, lat, order="pad_xy", rule="standard") is right at every border and pole, in any dtype.
rule="healda" gives the pixels of the released HealDA models' data pipe, for those models only: points on the
border of a face may get a pixel at its opposite border.
"""

from . import _C

ang2pix, convert, neighbours = _C.healpix.ang2pix, _C.healpix.convert, _C.healpix.neighbours
nest_of_padxy, npix, parent = _C.healpix.nest_of_padxy, _C.healpix.npix, _C.healpix.parent
pix2ang, reorder = _C.healpix.pix2ang, _C.healpix.reorder

__all__ = ["ang2pix", "convert", "neighbours", "nest_of_padxy", "npix", "parent", "pix2ang", "reorder"]
