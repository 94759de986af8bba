// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

namespace halcyon::parallel {

// Memory that the ranks of one machine share: for each ordered pair of them a ring of bytes, and
// for each rank a bell that the others ring when there is something to read or room to write.
class SharedSegment {
 public:
  struct Place {  // of a rank
    alignas(64) std::atomic<uint32_t> bell;
    std::atomic<uint32_t> sleepers;  // its threads that wait for the bell
    std::atomic<uint32_t> closed;    // it left the group
    std::atomic<int64_t> process;
  };
  // Bytes written and read since the beginning; one rank writes, one reads.
  struct Ring {
    alignas(64) std::atomic<uint64_t> written;
    alignas(64) std::atomic<uint64_t> read;
  };

  // Bytes of a ring between two of so many ranks; 0: too many of them.
  static uint64_t capacity(int64_t ranks);

  // Makes one for so many ranks; null where the system refuses it.
  static std::unique_ptr<SharedSegment> create(int64_t ranks);
  // Maps what another process made; null where it is not to be found here: another machine.
  static std::unique_ptr<SharedSegment> open(const std::string& name, int64_t ranks);
  ~SharedSegment();
  SharedSegment(const SharedSegment&) = delete;
  SharedSegment& operator=(const SharedSegment&) = delete;

  // Of at most 63 characters; remove() when all have opened it, so that nothing is left behind even
  // of processes that are killed. At the latest its maker's end removes it.
  const std::string& name() const { return name_; }
  void remove();

  Place& place(int64_t rank) const;
  Ring& ring(int64_t from, int64_t to) const;
  unsigned char* bytes(int64_t from, int64_t to) const;
  uint64_t ring_bytes() const { return capacity(ranks_); }

 private:
  SharedSegment(std::string name, int64_t ranks, void* memory);
  static size_t size_of(int64_t ranks);

  std::string name_;
  int64_t ranks_;
  unsigned char* memory_;
  bool is_to_be_removed_ = false;
};

// Whether a process of this machine lives; one that has ended and waits for its parent does not.
bool is_alive(int64_t process);

}  // namespace halcyon::parallel
