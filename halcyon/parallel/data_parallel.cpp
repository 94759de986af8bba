// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/data_parallel.h"

#include <ATen/ATen.h>
#include <c10/core/Event.h>
#include <c10/core/GradMode.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <mutex>
#include <utility>

#include "halcyon/base/error.h"
#include "halcyon/parallel/agreement.h"
#include "halcyon/parallel/broadcast.h"
#include "halcyon/parallel/courier.h"
#include "halcyon/parallel/exchange.h"
#include "halcyon/parallel/gradient_bucket.h"

namespace halcyon::parallel {
namespace {

constexpr const char* kOperation = "DataParallel";
constexpr const char* kBackward = "DataParallel backward";

// What a node of the graph calls when it has run.
class AfterAccumulation : public torch::autograd::FunctionPostHook {
 public:
  explicit AfterAccumulation(std::function<void()> f) : f_(std::move(f)) {}
  torch::autograd::variable_list operator()(
      const torch::autograd::variable_list& outputs,
      const torch::autograd::variable_list& /*inputs*/) override {
    f_();
    return outputs;
  }

 private:
  std::function<void()> f_;
};

// Work of another thread on a GPU goes to a stream of its own; on the CPU these do nothing.
struct Lane {
  explicit Lane(c10::Device of) : device(of) {
    if (!device.is_cpu()) {
      stream = c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device);
    }
  }
  // The stream of the calling thread, as far as it has come.
  std::shared_ptr<c10::Event> mark() const {
    if (!stream) return nullptr;
    auto event = std::make_shared<c10::Event>(device.type());
    event->record(c10::impl::VirtualGuardImpl(device.type()).getStream(device));
    return event;
  }
  // What the calling thread does next waits for all that was done on the lane.
  void join() const {
    if (!stream) return;
    c10::Event event(device.type());
    event.record(*stream);
    event.block(c10::impl::VirtualGuardImpl(device.type()).getStream(device));
  }
  c10::Device device;
  std::optional<c10::Stream> stream;
};

}  // namespace

class DataParallel::State {
 public:
  State(const NamedTensors& parameters, Group group, const DataParallelOptions& options,
        const std::vector<at::Tensor>& others);
  ~State();

  void begin_forward();

  std::mutex mutex;
  std::optional<double> sample_count;
  bool synchronise = true;

 private:
  struct Parameter {
    std::string name;
    at::Tensor tensor;
    size_t bucket = 0, place = 0;
    bool is_ready = false;   // in this backward
    bool was_ready = false;  // since the last begin_forward()
    std::shared_ptr<torch::autograd::Node> accumulator = {};
    uintptr_t hook = 0;
  };
  struct Bucket {
    GradientBucket gradients;
    std::vector<size_t> members;
    size_t missing = 0;
    std::vector<bool> marks;  // after the sum
  };

  void agree_and_share(const std::vector<at::Tensor>& others);
  void ready(size_t index);
  void put(size_t index);
  void begin_backward();
  void launch(size_t bucket);
  void weigh(double given, double count);
  void reduce(Bucket& bucket);
  void end_backward();

  Group group_;
  DataParallelOptions options_;
  int64_t tag_ = 0;
  std::vector<Parameter> parameters_;
  std::vector<Bucket> buckets_;
  std::unique_ptr<Lane> lane_;
  Share share_{1, 1};
  size_t launched_ = 0;
  bool running_ = false;
  std::vector<size_t> without_gradient_;  // on some rank, in the last backward
  std::unique_ptr<Courier> courier_;      // last: it stops first
};

DataParallel::State::State(const NamedTensors& parameters, Group group,
                           const DataParallelOptions& options,
                           const std::vector<at::Tensor>& others)
    : group_(std::move(group)), options_(options) {
  for (const auto& [name, tensor] : parameters) {
    if (!tensor.defined() || !tensor.requires_grad()) continue;
    parameters_.push_back({name, tensor});
  }
  agree_and_share(others);
  // backward meets the last parameters first
  std::vector<at::Tensor> reversed;
  for (auto p = parameters_.rbegin(); p != parameters_.rend(); ++p) reversed.push_back(p->tensor);
  for (const auto& numbers : cut_in_buckets(reversed, options_.bucket_bytes)) {
    std::vector<at::Tensor> tensors;
    std::vector<size_t> members;
    for (const auto number : numbers) {
      const auto index = parameters_.size() - 1 - number;
      parameters_[index].bucket = buckets_.size();
      parameters_[index].place = members.size();
      members.push_back(index);
      tensors.push_back(reversed[number]);
    }
    buckets_.push_back({GradientBucket(tensors), members, members.size(), {}});
  }
  lane_ = std::make_unique<Lane>(parameters_.front().tensor.device());
  courier_ = std::make_unique<Courier>();
  for (size_t i = 0; i < parameters_.size(); ++i) {
    auto& p = parameters_[i];
    p.accumulator = torch::autograd::impl::grad_accumulator(p.tensor);
    p.hook =
        p.accumulator->add_post_hook(std::make_unique<AfterAccumulation>([this, i] { ready(i); }));
  }
}

DataParallel::State::~State() {
  for (auto& p : parameters_) {
    if (p.accumulator) p.accumulator->del_post_hook(p.hook);
  }
}

void DataParallel::State::agree_and_share(const std::vector<at::Tensor>& others) {
  Agreement agreement(group_, kOperation);
  std::vector<at::Tensor> tensors;
  agreement.prepare([&] {
    std::string names;
    for (const auto& p : parameters_) {
      HALCYON_CHECK(p.tensor.is_leaf() && p.tensor.is_floating_point(), kOperation,
                    "expected parameters that are leaves of a floating dtype, got {}", p.name);
      HALCYON_CHECK(p.tensor.device() == parameters_.front().tensor.device(), kOperation,
                    "expected all parameters on one device, got {} and {}",
                    parameters_.front().tensor.device().str(), p.tensor.device().str());
      names += p.name + '\n';
      tensors.push_back(p.tensor);
    }
    HALCYON_CHECK(!parameters_.empty(), kOperation,
                  "expected a module with parameters that need a gradient, got none");
    HALCYON_CHECK(options_.bucket_bytes > 0, kOperation, "expected bucket_bytes above zero, got {}",
                  options_.bucket_bytes);
    agreement.same("bucket_bytes", options_.bucket_bytes);
    agreement.same("find_unused_parameters", static_cast<int64_t>(options_.find_unused_parameters));
    agree_on_tensors(agreement, "parameters", tensors);
    agreement.same("names of the parameters", names);
    agree_on_tensors(agreement, "buffers and frozen parameters", others);
  });
  agreement.post();
  agreement.finish();
  tag_ = agreement.tag();
  tensors.insert(tensors.end(), others.begin(), others.end());
  take_from_owners(tensors, std::vector<int64_t>(tensors.size(), 0), group_, kOperation, tag_);
}

void DataParallel::State::begin_forward() {
  const std::lock_guard lock(mutex);
  HALCYON_CHECK_KIND(!running_, communication, kOperation,
                     "the last backward on rank {} ended before its gradients were reduced, other "
                     "ranks wait for them: make a new group",
                     group_.rank());
  for (auto& p : parameters_) p.was_ready = false;
  if (without_gradient_.empty()) return;
  std::vector<std::string> names;
  names.reserve(without_gradient_.size());
  for (const auto i : without_gradient_) names.push_back(parameters_[i].name);
  without_gradient_.clear();
  throw_error(ErrorKind::argument, kOperation,
              fmt::format("expected every parameter to get a gradient in the last backward (or "
                          "find_unused_parameters=True), on some rank there was none for {}",
                          fmt::join(names, ", ")));
}

// A parameter's gradient has been accumulated.
void DataParallel::State::ready(size_t index) {
  const std::lock_guard lock(mutex);
  if (!synchronise) return;
  if (!running_) begin_backward();
  auto& p = parameters_[index];
  HALCYON_CHECK(p.tensor.grad().layout() == at::kStrided, kOperation,
                "expected dense gradients, got another layout for {}", p.name);
  HALCYON_CHECK(p.bucket >= launched_, kOperation,
                "expected one gradient a backward, got another for {}", p.name);
  const bool is_first = !std::exchange(p.is_ready, true);
  p.was_ready = true;
  put(index);
  if (is_first) --buckets_[p.bucket].missing;
  while (launched_ < buckets_.size() && buckets_[launched_].missing == 0) launch(launched_);
}

// The gradient as it goes to the others. Marked are the parameters that have one or, where all
// should get one, those that got none.
void DataParallel::State::put(size_t index) {
  const auto& p = parameters_[index];
  const auto& gradient = p.tensor.grad();
  const bool mark = options_.find_unused_parameters ? gradient.defined() : !p.was_ready;
  buckets_[p.bucket].gradients.put(p.place, gradient, mark);
}

// A checkpoint with a backward of its own (reentrant) inside that of the model, met first, is
// reduced when it ends, the rest with it once more: the mean of what is equal already stays.
void DataParallel::State::begin_backward() {
  running_ = true;
  launched_ = 0;
  for (auto& p : parameters_) p.is_ready = false;
  for (auto& bucket : buckets_) bucket.missing = bucket.members.size();
  torch::autograd::Engine::get_default_engine().queue_callback([this] { end_backward(); });
  courier_->submit([this, given = sample_count.has_value() ? 1.0 : 0.0,
                    count = sample_count.value_or(1)] { weigh(given, count); });
}

// Which part of the mean this rank is. Not by an Agreement, whose headers could meet those of an
// operation that the thread of the backward is in.
void DataParallel::State::weigh(double given, double count) {
  const auto device =
      group_.has_backend(c10::kCPU) || group_.size() == 1 ? c10::Device(c10::kCPU) : lane_->device;
  const c10::OptionalStreamGuard guard(device.is_cpu() ? std::nullopt : lane_->stream);
  std::vector<at::Tensor> all(group_.size());
  all[group_.rank()] = at::tensor({given, count}, at::kDouble).to(device);
  Exchange exchange(group_, kBackward, tag_);
  for (int64_t r = 0; r < group_.size(); ++r) {
    if (r == group_.rank()) continue;
    exchange.receive(r, all[r] = at::empty_like(all[group_.rank()]));
    exchange.send(r, all[group_.rank()]);
  }
  exchange.post();
  exchange.wait();
  std::vector<double> weights;
  for (int64_t r = 0; r < group_.size(); ++r) {
    const auto words = all[r].cpu();
    const auto* const theirs = words.const_data_ptr<double>();
    if (r == 0) given = theirs[0];
    HALCYON_CHECK(theirs[0] == given, kOperation,
                  "expected sample_count on every rank or on none, got one on rank {} only",
                  given == 0 ? r : 0);
    weights.push_back(theirs[1]);
  }
  share_ = share_of(weights, group_.rank(), kOperation);
}

void DataParallel::State::launch(size_t bucket) {
  HALCYON_ASSERT(bucket == launched_);
  ++launched_;
  courier_->submit([this, &one = buckets_[bucket], event = lane_->mark()] {
    const c10::OptionalStreamGuard guard(lane_->stream);
    if (event) event->block(*lane_->stream);
    reduce(one);
  });
}

void DataParallel::State::reduce(Bucket& bucket) {
  bucket.gradients.reduce(group_, kBackward, tag_, share_.weight, share_.total);
  bucket.marks = bucket.gradients.marks();
  for (size_t i = 0; i < bucket.members.size(); ++i) {
    auto& p = parameters_[bucket.members[i]];
    if (p.tensor.grad().defined()) p.tensor.grad().copy_(bucket.gradients.gradient(i));
  }
}

// The end of backward(): what is missing counts as zero, all is awaited.
void DataParallel::State::end_backward() {
  const std::lock_guard lock(mutex);
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (!parameters_[i].is_ready) put(i);
  }
  while (launched_ < buckets_.size()) launch(launched_);
  without_gradient_.clear();
  running_ = false;
  courier_->wait();
  lane_->join();
  const c10::NoGradGuard data_only;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    auto& p = parameters_[i];
    const auto& bucket = buckets_[p.bucket];
    const bool mark = bucket.marks[p.place];
    if (!options_.find_unused_parameters && mark) without_gradient_.push_back(i);
    auto& gradient = p.tensor.mutable_grad();
    if (gradient.defined() || (options_.find_unused_parameters && !mark)) continue;
    gradient = at::empty_like(p.tensor).copy_(bucket.gradients.gradient(p.place));
  }
}

DataParallel::DataParallel(const NamedTensors& parameters, const Group& group,
                           DataParallelOptions options, const std::vector<at::Tensor>& others)
    : state_(std::make_shared<State>(parameters, group, options, others)) {}

DataParallel::~DataParallel() = default;

void DataParallel::begin_forward() {
  state_->begin_forward();
}

void DataParallel::set_sample_count(std::optional<double> count) {
  const std::lock_guard lock(state_->mutex);
  state_->sample_count = count;
}

std::optional<double> DataParallel::sample_count() const {
  return state_->sample_count;
}

void DataParallel::set_synchronise(bool synchronise) {
  const std::lock_guard lock(state_->mutex);
  state_->synchronise = synchronise;
}

bool DataParallel::synchronise() const {
  return state_->synchronise;
}

}  // namespace halcyon::parallel
