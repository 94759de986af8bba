// SPDX-License-Identifier: Apache-2.0
#pragma once

// The sphere: HEALPix pixels, regions, latitude-longitude grids and regridding between them.
#include "halcyon/sphere/healpix.h"
#include "halcyon/sphere/latlon.h"
#include "halcyon/sphere/region.h"
#include "halcyon/sphere/regrid.h"
#include "halcyon/sphere/sparse_matrix.h"
