// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <list>
#include <memory>
#include <mutex>
#include <vector>

#include "halcyon/parallel/shared_segment.h"

namespace halcyon::parallel {

// Messages between the ranks of one machine through a SharedSegment, several times faster than by
// gloo's sockets: a message is copied into a ring and out of it, and nobody's thread but the two
// that wait for it takes part. Messages go in frames, so that those of several threads (a backward
// and the gradients that it reduces) pass one another. Between two ranks, messages of one tag
// arrive in order.
class SharedQueues {
 public:
  SharedQueues(std::unique_ptr<SharedSegment> segment, int64_t rank, int64_t ranks);
  ~SharedQueues();  // the others see that this rank has left

  struct Send {
    int64_t peer, tag;
    const unsigned char* data;
    size_t bytes, sent = 0;
    bool begun = false;
  };
  struct Receive {
    int64_t peer, tag;
    unsigned char* data;
    size_t bytes;
    size_t expected = 0, received = 0;  // of the message that is coming
    bool begun = false;
    bool done = false;  // set by whichever thread of this rank reads the last frame
    bool is_done() { return std::atomic_ref(done).load(std::memory_order_acquire); }
    void set_done() { std::atomic_ref(done).store(true, std::memory_order_release); }
  };

  // The memory stays where it is until the operation is over.
  void post(Receive& receive);
  void withdraw(Receive& receive) noexcept;

  // What came, is done, or can be written now; true if there was anything.
  bool progress(std::vector<Send*>& sends);
  // Until the bell rings or so many milliseconds have passed since this number was read.
  uint32_t bell() const;
  void sleep(uint32_t bell_before, int milliseconds) const;
  bool has_left(int64_t peer) const;
  // After a failure: what is under way between the ranks is lost, so that no operation is right any
  // more. The others see it, and is_over() says it here.
  void leave();
  bool is_over() const;

 private:
  struct Frame {  // before the bytes of each
    int64_t tag;
    uint64_t message;  // bytes of all of its frames
    uint64_t bytes;
    uint64_t first;  // 1: a message begins
  };
  struct Early {  // a message that nobody waits for yet
    int64_t peer, tag;
    std::vector<unsigned char> data;
    size_t received = 0;
  };

  bool push(Send& send);
  bool pull(int64_t peer);
  void deliver(int64_t peer, const Frame& frame, uint64_t at);
  bool take_early(Receive& receive);
  void read(int64_t peer, uint64_t at, unsigned char* to, size_t bytes) const;
  void write(int64_t peer, uint64_t at, const void* from, size_t bytes) const;
  void ring_bell(int64_t rank) const;

  std::unique_ptr<SharedSegment> segment_;
  int64_t rank_, ranks_;
  std::mutex sending_, receiving_;
  // in the order in which they were posted, or came; few at any time
  std::vector<Receive*> posted_;
  std::list<Early> early_;
};

}  // namespace halcyon::parallel
