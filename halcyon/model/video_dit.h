// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

#include "halcyon/model/block.h"
#include "halcyon/model/context.h"
#include "halcyon/nn/detokenizer.h"
#include "halcyon/nn/embedders.h"
#include "halcyon/nn/tokenizer.h"

namespace halcyon {

// The arguments of the blocks that VideoDiT has no name for itself (block_kwargs).
struct BlockKwargs {
  double norm_eps = 1e-6;
  double attn_drop_rate = 0, proj_drop_rate = 0, mlp_drop_rate = 0;
  bool final_mlp_dropout = true;
};

struct VideoDiTOptions {
  int64_t hidden_size = 0, num_heads = 0, num_layers = 0;
  std::optional<int64_t> emb_channels = {};    // 4 * hidden_size without it
  std::optional<int64_t> noise_channels = {};  // hidden_size without it
  int64_t condition_dim = 0;
  bool temporal_attention = false, use_rope = true;
  double rope_base = 100;
  int64_t max_seq_len = 100;
  TemporalKwargs temporal_kwargs;
  CrossAttentionFactory cross_attention;
  bool is_causal = false;
  std::string attention_backend = "timm", layernorm_backend = "torch";
  double mlp_ratio = 4.0;
  double drop_path = 0;  // the last block's; the others rise to it
  std::optional<std::vector<double>> drop_path_rates = {};  // one a block, instead
  std::string conditioning_embedder = "edm";                // "edm", "dit" or "zero"
  ConditioningEmbedderKwargs conditioning_embedder_kwargs;
  // Xavier-uniform linear layers with zero bias, then adaLN projections and the detokenizer's own
  bool dit_initialization = true;
  bool adaln_zero_init = true;
  QkNormKwargs attn_kwargs;
  BlockKwargs block_kwargs;
  // the pixels of the tokens, or at least their order, for spatial backends that need them
  std::optional<Region> grid = {};
  std::optional<healpix::Order> token_order = {};
};

// The arguments of a forward.
struct VideoDiTInputs {
  at::Tensor x, t;
  std::optional<at::Tensor> condition;
  SpatialAttentionKwargs attn_kwargs;
  std::any cross_attn_kwargs;
  RopeTables temporal_attn_kwargs;
  std::any tokenizer_kwargs;
};

// A diffusion-style transformer over frames of a grid: tokenizer, conditioning embedder, blocks,
// detokenizer. The tokenizers are the caller's modules. Keys tokenizer.*, detokenizer.*,
// conditioning_embedder.*, blocks.i.*; the rotary tables are not saved.
class VideoDiTImpl : public torch::nn::Module {
 public:
  VideoDiTImpl(std::shared_ptr<TokenizerBase> tokenizer,
               std::shared_ptr<DetokenizerBase> detokenizer, VideoDiTOptions options);

  // x (B, C, T, X_fine), t (B,), condition (B, condition_dim) -> what the detokenizer makes. All
  // kwargs pass through to every block and to the tokenizer; the rotary tables are filled in here.
  at::Tensor forward(const at::Tensor& x, const at::Tensor& t,
                     const std::optional<at::Tensor>& condition = std::nullopt,
                     const SpatialAttentionKwargs& attn_kwargs = {},
                     const std::any& cross_attn_kwargs = {},
                     const RopeTables& temporal_attn_kwargs = {},
                     const std::any& tokenizer_kwargs = {});
  // The same of what inputs() returns, under the name of another operation. Under context
  // parallelism an Error of inputs() is one on every rank; frames: how many there should be on all
  // ranks together.
  at::Tensor forward_of(const char* operation, const std::function<VideoDiTInputs()>& inputs,
                        std::optional<int64_t> frames = std::nullopt);

  // From here on the frames of x, and what is of frames among the kwargs, are this rank's of the
  // target's (context.h): consecutive in rank order, by the rule of torch.tensor_split, also none.
  // t and the condition are whole and the same on every rank, rotary tables are of all frames.
  // Every forward and backward is collective; gradients of parameters are this rank's contribution.
  // Random gates (drop_path) agree where the ranks' generators do. No mode: all frames are here.
  void set_context_parallel(const std::optional<std::string>& mode,
                            const parallel::Group& target = {});
  bool is_context_parallel() const { return context_.has_value(); }

  // From here on every t is 0, without a condition: what depends on them alone is computed now,
  // once. Turns to evaluation. Forwards refuse another t, a condition, and training, which lets go
  // of it (train()).
  void prepare_inference();
  void train(bool on = true) override;

  const std::vector<VideoDiTBlock>& blocks() const { return blocks_; }

 private:
  void fix_condition(const at::Tensor& c);
  void check(const VideoDiTInputs& in) const;
  ContextInputs context_inputs(const VideoDiTInputs& in, const at::Tensor& tokens,
                               const at::Tensor& c) const;
  at::Tensor embedded(const at::Tensor& t, const std::optional<at::Tensor>& condition);
  void add_blocks(int64_t condition_embed_dim);
  void initialize_weights();
  RopeTables tables_for(int64_t frames, c10::Device device, const RopeTables& given);

  VideoDiTOptions options_;
  std::shared_ptr<TokenizerBase> tokenizer_;
  std::shared_ptr<DetokenizerBase> detokenizer_;
  std::shared_ptr<ConditioningEmbedderBase> embedder_;
  std::vector<VideoDiTBlock> blocks_;
  std::optional<ContextParallel> context_;
  at::Tensor prepared_;             // the condition embedding (1, D_c) of prepare_inference()
  at::Tensor rope_cos_, rope_sin_;  // (max_seq_len, d_head), float32; they follow the data's device
};
TORCH_MODULE(VideoDiT);

}  // namespace halcyon
