// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/shared_queues.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstring>
#include <ctime>

#include "halcyon/base/error.h"

namespace halcyon::parallel {
namespace {

constexpr size_t kLine = 32;  // frames begin on multiples of it

size_t padded(size_t bytes) {
  return (bytes + kLine - 1) / kLine * kLine;
}

}  // namespace

SharedQueues::SharedQueues(std::unique_ptr<SharedSegment> segment, int64_t rank, int64_t ranks)
    : segment_(std::move(segment)), rank_(rank), ranks_(ranks) {
  static_assert(sizeof(Frame) == kLine);
  segment_->place(rank_).process = getpid();
}

SharedQueues::~SharedQueues() {
  leave();
}

bool SharedQueues::is_over() const {
  return segment_->place(rank_).closed.load() != 0;
}

void SharedQueues::leave() {
  segment_->place(rank_).closed = 1;
  for (int64_t peer = 0; peer < ranks_; ++peer) {
    if (peer != rank_) ring_bell(peer);
  }
}

void SharedQueues::ring_bell(int64_t rank) const {
  auto& place = segment_->place(rank);
  place.bell.fetch_add(1);
  if (place.sleepers.load() == 0) return;
  syscall(SYS_futex, &place.bell, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

uint32_t SharedQueues::bell() const {
  return segment_->place(rank_).bell.load();
}

void SharedQueues::sleep(uint32_t bell_before, int milliseconds) const {
  auto& place = segment_->place(rank_);
  timespec time{milliseconds / 1000, milliseconds % 1000 * 1000000L};
  place.sleepers.fetch_add(1);
  // returns at once where the bell has rung since
  syscall(SYS_futex, &place.bell, FUTEX_WAIT, bell_before, &time, nullptr, 0);
  place.sleepers.fetch_sub(1);
}

bool SharedQueues::has_left(int64_t peer) const {
  const auto& place = segment_->place(peer);
  return place.closed.load() != 0 || !is_alive(place.process.load());
}

void SharedQueues::write(int64_t peer, uint64_t at, const void* from, size_t bytes) const {
  const auto capacity = segment_->ring_bytes();
  auto* const ring = segment_->bytes(rank_, peer);
  const auto offset = at % capacity, whole = std::min<uint64_t>(bytes, capacity - offset);
  std::memcpy(ring + offset, from, whole);
  std::memcpy(ring, static_cast<const unsigned char*>(from) + whole, bytes - whole);
}

void SharedQueues::read(int64_t peer, uint64_t at, unsigned char* to, size_t bytes) const {
  const auto capacity = segment_->ring_bytes();
  const auto* const ring = segment_->bytes(peer, rank_);
  const auto offset = at % capacity, whole = std::min<uint64_t>(bytes, capacity - offset);
  std::memcpy(to, ring + offset, whole);
  std::memcpy(to + whole, ring, bytes - whole);
}

// One frame, if there is room.
bool SharedQueues::push(Send& send) {
  const std::lock_guard lock(sending_);
  auto& ring = segment_->ring(rank_, send.peer);
  const auto written = ring.written.load(std::memory_order_relaxed);
  const auto room = segment_->ring_bytes() - (written - ring.read.load(std::memory_order_acquire));
  // an eighth of the ring: the reader empties one part while the next is written
  const auto most = segment_->ring_bytes() / 8;
  const auto bytes = std::min<size_t>(send.bytes - send.sent, most - kLine);
  if (room < kLine + padded(bytes)) return false;
  const Frame frame{send.tag, send.bytes, bytes, send.begun ? 0u : 1u};
  write(send.peer, written, &frame, kLine);
  write(send.peer, written + kLine, send.data + send.sent, bytes);
  ring.written.store(written + kLine + padded(bytes), std::memory_order_release);
  send.begun = true;
  send.sent += bytes;
  ring_bell(send.peer);
  return true;
}

// One frame, if there is one.
bool SharedQueues::pull(int64_t peer) {
  auto& ring = segment_->ring(peer, rank_);
  const auto at = ring.read.load(std::memory_order_relaxed);
  if (ring.written.load(std::memory_order_acquire) == at) return false;
  Frame frame;
  read(peer, at, reinterpret_cast<unsigned char*>(&frame), kLine);
  deliver(peer, frame, at + kLine);
  ring.read.store(at + kLine + padded(frame.bytes), std::memory_order_release);
  ring_bell(peer);
  return true;
}

void SharedQueues::deliver(int64_t peer, const Frame& frame, uint64_t at) {
  const auto fits = [&](const auto& one) { return one.peer == peer && one.tag == frame.tag; };
  const auto early = std::find_if(early_.rbegin(), early_.rend(), fits);
  const auto waiting =
      std::find_if(posted_.begin(), posted_.end(), [&](const Receive* one) { return fits(*one); });
  const bool goes_on_early =
      !frame.first && early != early_.rend() && early->received < early->data.size();
  if (goes_on_early || (frame.first && (waiting == posted_.end() || early != early_.rend()))) {
    if (frame.first) {
      early_.push_back({peer, frame.tag, std::vector<unsigned char>(frame.message), 0});
    }
    auto& message = frame.first ? early_.back() : *early;
    read(peer, at, message.data.data() + message.received, frame.bytes);
    message.received += frame.bytes;
    return;
  }
  if (waiting == posted_.end()) return;  // what was withdrawn
  auto& receive = **waiting;
  if (frame.first) {
    receive.begun = true;
    receive.expected = frame.message;
  }
  if (!receive.begun) return;
  // more than there is room for is counted, not kept: the receiver reports it
  if (receive.expected <= receive.bytes) {
    read(peer, at, receive.data + receive.received, frame.bytes);
  }
  receive.received += frame.bytes;
  if (receive.received < receive.expected) return;
  posted_.erase(waiting);
  receive.set_done();  // from here on the receive may be gone
  ring_bell(rank_);    // it may be another thread's
}

// A message that came before it was waited for, if it is there whole.
bool SharedQueues::take_early(Receive& receive) {
  const auto message = std::find_if(early_.begin(), early_.end(), [&](const Early& one) {
    return one.peer == receive.peer && one.tag == receive.tag;
  });
  if (message == early_.end() || message->received < message->data.size()) return false;
  receive.expected = receive.received = message->data.size();
  if (receive.expected <= receive.bytes) {
    std::memcpy(receive.data, message->data.data(), receive.expected);
  }
  early_.erase(message);
  return true;
}

void SharedQueues::post(Receive& receive) {
  const std::lock_guard lock(receiving_);
  posted_.push_back(&receive);
}

void SharedQueues::withdraw(Receive& receive) noexcept {
  const std::lock_guard lock(receiving_);
  posted_.erase(std::remove(posted_.begin(), posted_.end(), &receive), posted_.end());
}

bool SharedQueues::progress(std::vector<Send*>& sends) {
  bool moved = false;
  std::vector<bool> is_full(ranks_);
  for (auto* const send : sends) {
    // a later message, whose frame is shorter, must not overtake
    while (!is_full[send->peer]) {
      is_full[send->peer] = !push(*send);
      moved |= !is_full[send->peer];
      if (send->sent == send->bytes) break;
    }
  }
  sends.erase(
      std::remove_if(sends.begin(), sends.end(),
                     [](const Send* send) { return send->begun && send->sent == send->bytes; }),
      sends.end());
  const std::lock_guard lock(receiving_);
  for (int64_t peer = 0; peer < ranks_; ++peer) {
    while (peer != rank_ && pull(peer)) moved = true;
  }
  for (size_t i = 0; i < posted_.size();) {
    auto& receive = *posted_[i];
    if (receive.begun || !take_early(receive)) {
      ++i;
      continue;
    }
    posted_.erase(posted_.begin() + static_cast<std::ptrdiff_t>(i));
    receive.set_done();  // from here on the receive may be gone
    moved = true;
    ring_bell(rank_);
  }
  return moved;
}

}  // namespace halcyon::parallel
