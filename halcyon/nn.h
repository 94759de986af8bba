// SPDX-License-Identifier: Apache-2.0
#pragma once

// The layers as torch::nn modules.
#include "halcyon/nn/adaln.h"
#include "halcyon/nn/calendar.h"
#include "halcyon/nn/cross_attention.h"
#include "halcyon/nn/detokenizer.h"
#include "halcyon/nn/embedders.h"
#include "halcyon/nn/healpix_attention.h"
#include "halcyon/nn/neighborhood_attention.h"
#include "halcyon/nn/neighborhood_attention_healpix.h"
#include "halcyon/nn/obs_tokenizer.h"
#include "halcyon/nn/parameters.h"
#include "halcyon/nn/self_attention.h"
#include "halcyon/nn/temporal_attention.h"
#include "halcyon/nn/tokenizer.h"
