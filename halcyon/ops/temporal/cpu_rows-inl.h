// SPDX-License-Identifier: Apache-2.0
// Part of cpu_kernel-inl.h.

namespace halcyon::temporal_detail {
namespace {

// A pixel of one operand from some head on: frame t at data + t * row.
template <class S>
struct Pixel {
  S* data;
  int64_t row;
  Pixel head(int64_t channel) const { return {data + channel, row}; }
};

// Frames [first_seen, last_seen) are seen by i; [first_seeing, last_seeing) see j.
template <class T>
inline int64_t first_seen(const Problem<T>& p, int64_t i) {
  return i < p.window ? 0 : i - p.window + 1;
}
template <class T>
inline int64_t last_seen(const Problem<T>& p, int64_t i) {
  return p.causal ? i + 1 : p.frames;
}
template <class T>
inline int64_t first_seeing(const Problem<T>& p, int64_t j) {
  return p.causal ? j : 0;
}
template <class T>
inline int64_t last_seeing(const Problem<T>& p, int64_t j) {
  return p.frames - j < p.window ? p.frames : j + p.window;
}

// A head's row of one frame, at most `count` elements of it: zero behind them.
template <class T, class S>
inline Vector<T> load_some(const S* from, int64_t count) {
  constexpr int kN = kLanes<T>;
  if (count >= kN) return load(from);
  T some[kN] = {};
  for (int64_t l = 0; l < count; ++l) some[l] = get(from + l);
  return load(some);
}
template <class T, class S>
inline void store_some(S* to, Vector<T> x, int64_t count) {
  constexpr int kN = kLanes<T>;
  if (count >= kN) return store(to, x);
  T some[kN];
  store(some, x);
  for (int64_t l = 0; l < count; ++l) put(to + l, some[l]);
}

// Vectors of channels c of frame t turned by its angles, and turned back (the transpose).
template <class T>
inline Vector<T> rotate(const Problem<T>& p, Vector<T> x, int64_t t, int64_t c) {
  const int64_t at = t * p.table_row + c;
  return x * load(p.cos + at) + swap_pairs<T>(x) * load(p.turn + at);
}
template <class T>
inline Vector<T> unrotate(const Problem<T>& p, Vector<T> x, int64_t t, int64_t c) {
  const int64_t at = t * p.table_row + c;
  return x * load(p.cos + at) + swap_pairs<T>(x * load(p.turn + at));
}

// One head of a pixel to rows of `width`, zero-padded; as it is, or rotated and scaled.
template <class T, class S>
void load_rows(const Problem<T>& p, const Pixel<S>& from, T* to, int64_t width) {
  for (int64_t t = 0; t < p.frames; ++t) {
    for (int64_t c = 0; c < width; c += kLanes<T>)
      store(to + t * width + c, load_some<T>(from.data + t * from.row + c, p.head_dim - c));
  }
}
template <class T, class S>
void load_turned(const Problem<T>& p, const Pixel<S>& from, T scale, T* to, int64_t width) {
  for (int64_t t = 0; t < p.frames; ++t) {
    for (int64_t c = 0; c < width; c += kLanes<T>) {
      auto x = load_some<T>(from.data + t * from.row + c, p.head_dim - c) * scale;
      if (p.cos) x = rotate<T>(p, x, t, c);
      store(to + t * width + c, x);
    }
  }
}
// Channels c of frame t of a gradient of what was rotated and scaled.
template <class T, class S>
inline void store_unturned(const Problem<T>& p, Vector<T> x, T scale, const Pixel<S>& to, int64_t t,
                           int64_t c) {
  x *= scale;
  if (p.cos) x = unrotate<T>(p, x, t, c);
  store_some<T>(to.data + t * to.row + c, x, p.head_dim - c);
}

}  // namespace
}  // namespace halcyon::temporal_detail
