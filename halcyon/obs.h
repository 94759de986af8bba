// SPDX-License-Identifier: Apache-2.0
#pragma once

// Observations: tables, readers, quality control, station biases, features, packing.
#include "halcyon/obs/bias.h"
#include "halcyon/obs/features.h"
#include "halcyon/obs/observation_file.h"
#include "halcyon/obs/packing.h"
#include "halcyon/obs/quality_control.h"
#include "halcyon/obs/reader.h"
#include "halcyon/obs/split.h"
#include "halcyon/obs/summary.h"
#include "halcyon/obs/table.h"
#include "halcyon/obs/variables.h"
