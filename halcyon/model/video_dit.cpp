// SPDX-License-Identifier: Apache-2.0
#include "halcyon/model/video_dit.h"

#include <ATen/Functions.h>
#include <ATen/record_function.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/modules/linear.h>

#include <algorithm>

#include "halcyon/base/error.h"
#include "halcyon/nn/checks.h"
#include "halcyon/nn/parameters.h"
#include "halcyon/ops/rope.h"
#include "halcyon/parallel/row_transfer.h"

namespace halcyon {
namespace {

constexpr const char* kName = "VideoDiT";

std::vector<double> drop_path_rates(const VideoDiTOptions& options) {
  if (options.drop_path_rates) {
    HALCYON_CHECK(static_cast<int64_t>(options.drop_path_rates->size()) == options.num_layers,
                  kName, "expected {} drop_path_rates, one a block, got {}", options.num_layers,
                  options.drop_path_rates->size());
    return *options.drop_path_rates;
  }
  nn::check_rate(kName, "drop_path", options.drop_path);
  std::vector<double> rates;
  rates.reserve(static_cast<std::size_t>(options.num_layers));
  for (int64_t i = 0; i < options.num_layers; ++i) {
    rates.push_back(options.drop_path * static_cast<double>(i) /
                    static_cast<double>(std::max<int64_t>(1, options.num_layers - 1)));
  }
  return rates;
}

VideoDiTBlockOptions block_options(const VideoDiTOptions& options, int64_t condition_embed_dim,
                                   double drop_path) {
  VideoDiTBlockOptions block;
  block.hidden_size = options.hidden_size;
  block.num_heads = options.num_heads;
  block.condition_embed_dim = condition_embed_dim;
  block.attention_backend = options.attention_backend;
  block.layernorm_backend = options.layernorm_backend;
  block.mlp_ratio = options.mlp_ratio;
  block.norm_eps = options.block_kwargs.norm_eps;
  block.attn_drop_rate = options.block_kwargs.attn_drop_rate;
  block.proj_drop_rate = options.block_kwargs.proj_drop_rate;
  block.mlp_drop_rate = options.block_kwargs.mlp_drop_rate;
  block.final_mlp_dropout = options.block_kwargs.final_mlp_dropout;
  block.drop_path = drop_path;
  block.temporal_attention = options.temporal_attention;
  block.use_rope = options.use_rope;
  block.temporal_kwargs = options.temporal_kwargs;
  block.cross_attention = options.cross_attention;
  block.is_causal = options.is_causal;
  block.adaln_zero_init = options.adaln_zero_init;
  block.attn_kwargs = options.attn_kwargs;
  block.grid = options.grid;
  block.token_order = options.token_order;
  return block;
}

// Xavier-uniform with zero bias, for our linear layers and for torch's own in plugged-in modules.
void draw_linears(torch::nn::Module& root) {
  for (const auto& module : root.modules(/*include_self=*/false)) {
    at::Tensor weight, bias;
    if (const auto* ours = module->as<nn::Linear>()) {
      weight = ours->weight;
      bias = ours->bias;
    } else if (const auto* torchs = module->as<torch::nn::Linear>()) {
      weight = torchs->weight;
      bias = torchs->bias;
    } else {
      continue;
    }
    nn::init_xavier_uniform(weight);
    if (bias.defined()) nn::init_constant(bias, 0);
  }
}

}  // namespace

VideoDiTImpl::VideoDiTImpl(std::shared_ptr<TokenizerBase> tokenizer,
                           std::shared_ptr<DetokenizerBase> detokenizer, VideoDiTOptions options)
    : torch::nn::Module(kName),
      options_(std::move(options)),
      tokenizer_(std::move(tokenizer)),
      detokenizer_(std::move(detokenizer)) {
  HALCYON_CHECK(tokenizer_ && detokenizer_, kName,
                "expected a tokenizer and a detokenizer, got none");
  const int64_t d_head = nn::head_width(kName, options_.hidden_size, options_.num_heads);
  nn::check_positive(kName, "num_layers", options_.num_layers);
  nn::check_positive(kName, "max_seq_len", options_.max_seq_len);
  register_module("tokenizer", tokenizer_);
  register_module("detokenizer", detokenizer_);
  if (options_.temporal_attention && options_.use_rope) {
    HALCYON_CHECK(d_head % 2 == 0, kName, "expected an even head width for rope, got {}", d_head);
    std::tie(rope_cos_, rope_sin_) = rope_tables(d_head, options_.max_seq_len, options_.rope_base);
  }
  {
    const bool redrawn =
        options_.dit_initialization && nn::parameters_mode() == nn::Parameters::initialised;
    const nn::ParametersGuard mode(redrawn ? nn::Parameters::linears_later : nn::parameters_mode());
    embedder_ = register_module(
        "conditioning_embedder",
        make_conditioning_embedder(options_.conditioning_embedder, options_.hidden_size,
                                   options_.emb_channels.value_or(4 * options_.hidden_size),
                                   options_.noise_channels.value_or(options_.hidden_size),
                                   options_.condition_dim, options_.conditioning_embedder_kwargs));
    add_blocks(embedder_->output_dim());
  }
  if (options_.dit_initialization) initialize_weights();
}

void VideoDiTImpl::add_blocks(int64_t condition_embed_dim) {
  const auto rates = drop_path_rates(options_);
  const auto list = register_module("blocks", torch::nn::ModuleList());
  for (const double rate : rates) {
    blocks_.emplace_back(block_options(options_, condition_embed_dim, rate));
    list->push_back(blocks_.back());
  }
}

void VideoDiTImpl::initialize_weights() {
  draw_linears(*this);
  embedder_->initialize_weights();
  detokenizer_->initialize_weights();
  if (!options_.adaln_zero_init) return;
  for (const auto& block : blocks_) {
    for (const auto& modulation : block->modulations()) {
      nn::init_constant(modulation->projection()->weight, 0);
      nn::init_constant(modulation->projection()->bias, 0);
    }
  }
}

RopeTables VideoDiTImpl::tables_for(int64_t frames, c10::Device device, const RopeTables& given) {
  if (!rope_cos_.defined() || (given.rope_cos && given.rope_sin)) return given;
  HALCYON_CHECK(frames <= options_.max_seq_len, kName,
                "expected at most max_seq_len = {} frames, got {}", options_.max_seq_len, frames);
  if (rope_cos_.device() != device) {
    rope_cos_ = rope_cos_.to(device);
    rope_sin_ = rope_sin_.to(device);
  }
  return {rope_cos_.narrow(0, 0, frames), rope_sin_.narrow(0, 0, frames)};
}

void VideoDiTImpl::fix_condition(const at::Tensor& c) {
  prepared_ = c;
  for (auto& block : blocks_) block->fix_condition(c);
  detokenizer_->fix_condition(c);
}

void VideoDiTImpl::prepare_inference() {
  eval();
  const at::NoGradGuard no_grad;
  const auto parameters = this->parameters();
  const auto like = parameters.empty() ? at::TensorOptions() : parameters.front().options();
  auto c = embedder_->embed(at::zeros({1}, like), std::nullopt);
  if (c.numel() == 0) c = c.to(like.dtype());
  fix_condition(c);
}

void VideoDiTImpl::train(bool on) {
  if (on) fix_condition({});
  torch::nn::Module::train(on);
}

at::Tensor VideoDiTImpl::embedded(const at::Tensor& t, const std::optional<at::Tensor>& condition) {
  if (!prepared_.defined()) return embedder_->embed(t, condition);
  HALCYON_CHECK(!condition && t.eq(0).all().item<bool>(), kName,
                "expected t of zeros and no condition after prepare_inference, got others");
  return prepared_.expand({t.size(0), -1});
}

void VideoDiTImpl::set_context_parallel(const std::optional<std::string>& mode,
                                        const parallel::Group& target) {
  context_ = context_parallel(mode, target);
}

void VideoDiTImpl::check(const VideoDiTInputs& in) const {
  nn::check_rank(kName, "x", in.x, 4, "(B, C, T, X)");
  HALCYON_CHECK(in.t.defined() && in.t.sizes() == at::IntArrayRef({in.x.size(0)}), kName,
                "expected t ({},), got {}", in.x.size(0), describe(in.t));
  HALCYON_CHECK(!in.condition || in.condition->sizes() ==
                                     at::IntArrayRef({in.x.size(0), options_.condition_dim}),
                kName, "expected condition ({}, {}), got {}", in.x.size(0), options_.condition_dim,
                describe(*in.condition));
}

ContextInputs VideoDiTImpl::context_inputs(const VideoDiTInputs& in, const at::Tensor& tokens,
                                           const at::Tensor& c) const {
  const auto parameters = this->parameters();
  const auto learned = std::count_if(parameters.begin(), parameters.end(),
                                     [](const auto& p) { return p.requires_grad(); });
  const auto* observations = std::any_cast<PixelCrossAttentionKwargs>(&in.cross_attn_kwargs);
  const int64_t pixels = tokens.size(0) * tokens.size(1) * tokens.size(2);
  HALCYON_CHECK(!observations || (observations->cu_seqlens_k.defined() &&
                                  observations->cu_seqlens_k.numel() == pixels + 1),
                kName, "expected cu_seqlens_k of B * t_local * X + 1 = {} elements, got {}",
                pixels + 1, describe(observations->cu_seqlens_k));
  ContextInputs told;
  told.x = in.x;
  told.tokens = tokens;
  told.requires_grad = tokens.requires_grad() || c.requires_grad() ||
                       (observations && observations->tokens.requires_grad());
  told.whole = {{"t", in.t}, {"condition", in.condition}};
  told.facts = {{"number of blocks", options_.num_layers},
                {"presence of temporal attention", options_.temporal_attention},
                {"presence of cross_attn_kwargs", in.cross_attn_kwargs.has_value()},
                {"presence of rotary tables", in.temporal_attn_kwargs.rope_cos.has_value()},
                {"training mode", is_training()},
                {"number of parameters that need gradients", learned}};
  return told;
}

at::Tensor VideoDiTImpl::forward(const at::Tensor& x, const at::Tensor& t,
                                 const std::optional<at::Tensor>& condition,
                                 const SpatialAttentionKwargs& attn_kwargs,
                                 const std::any& cross_attn_kwargs,
                                 const RopeTables& temporal_attn_kwargs,
                                 const std::any& tokenizer_kwargs) {
  return forward_of(kName, [&] {
    return VideoDiTInputs{
        x, t, condition, attn_kwargs, cross_attn_kwargs, temporal_attn_kwargs, tokenizer_kwargs};
  });
}

at::Tensor VideoDiTImpl::forward_of(const char* operation,
                                    const std::function<VideoDiTInputs()>& inputs,
                                    std::optional<int64_t> frames) {
  VideoDiTInputs in;
  at::Tensor h, c;
  const auto begin = [&] {
    in = inputs();
    check(in);
    {
      RECORD_USER_SCOPE("halcyon::tokenizer");
      h = tokenizer_->tokenize(in.x, in.tokenizer_kwargs);
    }
    nn::check_rank(kName, "the tokenizer's output", h, 4, "(B, T, X, C)");
    c = embedded(in.t, in.condition);
    if (c.numel() == 0)
      c = c.to(h.scalar_type());  // the zero embedder has no weights to tell a dtype
  };
  ContextLayout layout;
  if (context_) {
    layout = agree_on_context(*context_, operation, frames, [&] {
      begin();
      return context_inputs(in, h, c);
    });
    h = parallel::joined_to_backward(h, layout.any_requires_grad);
  } else {
    begin();
    layout.frames = h.size(1);
  }
  const auto tables = tables_for(layout.frames, h.device(), in.temporal_attn_kwargs);
  if (at::GradMode::is_enabled() || is_training()) {
    for (auto& block : blocks_) {
      h = block->forward(h, c, in.attn_kwargs, in.cross_attn_kwargs, tables, layout.ranks);
    }
  } else {
    // a tokenizer of the caller's may keep what it returned
    if (h.use_count() > 1 || h.storage().use_count() > 1 || !h.is_contiguous())
      h = h.clone(at::MemoryFormat::Contiguous);
    for (auto& block : blocks_) {
      block->forward_in_place(h, c, in.attn_kwargs, in.cross_attn_kwargs, tables, layout.ranks);
    }
  }
  RECORD_USER_SCOPE("halcyon::detokenizer");
  return detokenizer_->detokenize(h, c);
}

}  // namespace halcyon
