// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "halcyon/ops/neighborhood/plan.h"

namespace halcyon::neighborhood {
namespace {

// Calls f(begin, end, first, last) for the stretches of positions that the same spans
// first, ..., last - 1 cover. Starts and ends must not decrease.
template <class SpanOf, class F>
void each_stretch(int spans, const SpanOf& span, const F& f) {
  int first = 0, last = 0;
  int64_t position = span(0).start;
  while (first < spans) {
    if (first == last) position = std::max(position, span(first).start);
    while (last < spans && span(last).start <= position) ++last;
    while (first < last && span(first).start + span(first).count <= position) ++first;
    if (first == last) {
      if (last == spans) return;
      continue;
    }
    int64_t end = span(first).start + span(first).count;
    if (last < spans) end = std::min(end, span(last).start);
    f(position, end, first, last);
    position = end;
  }
}

}  // namespace

Tiler::Tiler(const Plan& plan, const Item& item, int lanes, int64_t capacity)
    : plan_(plan),
      item_(item),
      lanes_(lanes),
      capacity_(capacity),
      sign_(plan.targets() == Plan::queries ? 1 : -1) {
  tile_.capacity = capacity;
  tile_.bias_row = sign_ * (2 * plan.axes()[2].kernel - 1);
  tile_.bias_step = sign_;
}

Lanes Tiler::lanes_at(int64_t i2, int64_t valid) const {
  Lanes lanes;
  const int64_t kernel = plan_.axes()[2].kernel;
  const Span first = item_.span(2, i2);
  bool direct = true, near = true;
  for (int64_t l = 0; l < lanes_; ++l) {
    const int64_t target = i2 + std::min(l, valid - 1);
    const Span span = item_.span(2, target);
    lanes.at[l] = static_cast<int32_t>(span.start - first.start);
    lanes.count[l] = static_cast<int32_t>(span.count);
    lanes.bias[l] = static_cast<int32_t>(sign_ * (span.start - target) + kernel - 1);
    direct = direct && (l >= valid || lanes.at[l] == l);
    near = near && lanes.at[l] < lanes_;
    lanes.ragged = lanes.ragged || span.count != first.count;
  }
  lanes.mode = direct ? Lanes::direct : near ? Lanes::permuted : Lanes::scattered;
  return lanes;
}

TileTargets Tiler::build(const std::array<int64_t, kMaxAxes>& first) {
  runs_.clear();
  steps_.clear();
  first_run_.assign(1, 0);
  const int64_t left = item_.target[2].end - first[2], below = item_.target[1].end - first[1];
  TileTargets targets{first, true, 1, std::min<int64_t>(left, lanes_)};
  tile_.lanes = lanes_at(first[2], targets.valid);
  shifts_ = *std::max_element(tile_.lanes.count, tile_.lanes.count + lanes_);
  std::fill_n(tile_.slots, kMaxVectors, 0);
  if (item_.target[1].size() > 1) {
    targets.vectors = static_cast<int32_t>(std::min<int64_t>(below, kMaxVectors));
    add_rows(targets);
  } else {
    targets.stacked = false;
    const auto continues = [&](int64_t n) {
      const auto lanes = lanes_at(first[2] + n * lanes_, lanes_);
      return tile_.lanes.mode == Lanes::direct && !tile_.lanes.ragged &&
             lanes.mode == Lanes::direct && !lanes.ragged &&
             lanes.count[0] == tile_.lanes.count[0] && lanes.bias[0] == tile_.lanes.bias[0];
    };
    while (targets.vectors < kMaxVectors && (targets.vectors + 1) * lanes_ <= left &&
           continues(targets.vectors))
      ++targets.vectors;
    if (targets.vectors > 1) {
      add_blocks(targets);
    } else {
      add_rows(targets);
    }
  }
  close();
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    steps_[i].lanes = tile_.lanes;
    steps_[i].vectors = targets.vectors;
    steps_[i].continued = i > 0;
    steps_[i].runs = runs_.data() + first_run_[i];
    steps_[i].n_runs = first_run_[i + 1] - first_run_[i];
  }
  return targets;
}

int64_t Tiler::bias_of_row(const TileTargets& targets, int vector, int64_t p0, int64_t p1) const {
  const auto& axes = plan_.axes();
  const int64_t i1 = targets.first[1] + (targets.stacked ? vector : 0);
  const int64_t row0 = sign_ * (p0 - targets.first[0]) + axes[0].kernel - 1,
                row1 = sign_ * (p1 - i1) + axes[1].kernel - 1;
  return (row0 * (2 * axes[1].kernel - 1) + row1) * (2 * axes[2].kernel - 1);
}

Range Tiler::planes(int64_t i0) const {
  const Span span = item_.span(0, i0);
  return {span.start, span.start + span.count};
}
Range Tiler::rows(int64_t i1) const {
  const int64_t end = std::min(i1 + rows_of_step(item_), item_.target[1].end);
  const Span first = item_.span(1, i1), last = item_.span(1, end - 1);
  return {first.start, last.start + last.count};
}

// Vectors are consecutive rows of targets: what differs is which rows of sources they meet.
void Tiler::add_rows(const TileTargets& targets) {
  const Span outer = item_.span(0, targets.first[0]);
  for (int64_t p0 = outer.start; p0 < outer.start + outer.count; ++p0) {
    each_stretch(
        targets.vectors, [&](int v) { return item_.span(1, targets.first[1] + v); },
        [&](int64_t begin, int64_t end, int first, int last) {
          Run run;
          run.element = item_.span(2, targets.first[2]).start - item_.source[2].begin;
          run.shifts = shifts_;
          run.first_vector = first;
          run.vectors = last - first;
          while (begin < end) {
            // as far as the rows are kept one behind the other
            const int64_t next = std::min(end, begin + item_.stored[1] - item_.place(1, begin));
            run.row = item_.row(p0, begin);
            for (int v = first; v < last; ++v) run.bias[v] = bias_of_row(targets, v, p0, begin);
            add(run, next - begin);
            begin = next;
          }
        });
  }
}

// Vectors are consecutive blocks of one row: what differs is which elements of a row they meet.
void Tiler::add_blocks(const TileTargets& targets) {
  const Span outer = item_.span(0, targets.first[0]), inner = item_.span(1, targets.first[1]);
  const auto span = [&](int v) { return item_.span(2, targets.first[2] + v * lanes_); };
  for (int64_t p0 = outer.start; p0 < outer.start + outer.count; ++p0) {
    each_stretch(targets.vectors, span, [&](int64_t begin, int64_t end, int first, int last) {
      Run run;
      run.element = begin - item_.source[2].begin;
      run.shifts = end - begin;
      run.first_vector = first;
      run.vectors = last - first;
      for (int64_t p1 = inner.start; p1 < inner.start + inner.count; ++p1) {
        run.row = item_.row(p0, p1);
        for (int v = first; v < last; ++v)
          run.bias[v] = bias_of_row(targets, v, p0, p1) + sign_ * (begin - span(v).start);
        add(run, 1);
      }
    });
  }
}

// Deals out slots; where they do not suffice, a new step begins.
void Tiler::add(Run run, int64_t rows) {
  if (run.shifts == 0) return;
  if (run.shifts > capacity_) {
    const Run whole = run;
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t begin = 0; begin < whole.shifts; begin += capacity_) {
        Run part = whole;
        part.row += row;
        part.element += begin;
        part.shift += begin;
        part.shifts = std::min(capacity_, whole.shifts - begin);
        for (int v = part.first_vector; v < part.first_vector + part.vectors; ++v)
          part.bias[v] += row * tile_.bias_row + begin * tile_.bias_step;
        add(part, 1);
      }
    }
    return;
  }
  const int last = run.first_vector + run.vectors;
  while (rows > 0) {
    const int64_t used = *std::max_element(tile_.slots + run.first_vector, tile_.slots + last);
    const int64_t fit = std::min(rows, (capacity_ - used) / run.shifts);
    if (fit == 0) {
      close();
      continue;
    }
    run.rows = fit;
    for (int v = run.first_vector; v < last; ++v) {
      run.slot[v] = tile_.slots[v];
      tile_.slots[v] += fit * run.shifts;
    }
    runs_.push_back(run);
    run.row += fit;
    for (int v = run.first_vector; v < last; ++v) run.bias[v] += fit * tile_.bias_row;
    rows -= fit;
  }
}

void Tiler::close() {
  if (static_cast<int64_t>(runs_.size()) == first_run_.back()) return;
  steps_.push_back(tile_);
  first_run_.push_back(static_cast<int64_t>(runs_.size()));
  std::fill_n(tile_.slots, kMaxVectors, 0);
}

}  // namespace halcyon::neighborhood
