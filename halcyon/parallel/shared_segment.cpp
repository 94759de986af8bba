// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/shared_segment.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <random>

namespace halcyon::parallel {
namespace {

constexpr uint64_t kMost = uint64_t{32} << 20, kLargest = uint64_t{1} << 20,
                   kLeast = uint64_t{64} << 10;
constexpr size_t kPlaces = sizeof(SharedSegment::Place), kRing = sizeof(SharedSegment::Ring);

// Closes the descriptor: the mapping keeps the memory.
void* map(int descriptor, size_t bytes) {
  void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  close(descriptor);
  return memory == MAP_FAILED ? nullptr : memory;
}

}  // namespace

uint64_t SharedSegment::capacity(int64_t ranks) {
  if (ranks < 2) return 0;
  const auto each = kMost / static_cast<uint64_t>(ranks * (ranks - 1)) / 4096 * 4096;
  return each < kLeast ? 0 : std::min(each, kLargest);
}

size_t SharedSegment::size_of(int64_t ranks) {
  return static_cast<size_t>(ranks) * kPlaces +
         static_cast<size_t>(ranks * ranks) * (kRing + capacity(ranks));
}

std::unique_ptr<SharedSegment> SharedSegment::create(int64_t ranks) {
  if (capacity(ranks) == 0) return nullptr;
  std::random_device random;
  const auto name = fmt::format("/halcyon-{}-{:08x}{:08x}", getpid(), random(), random());
  const int descriptor = shm_open(name.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
  if (descriptor < 0) return nullptr;
  // all of it now: a page that the system has no room for later would end the process
  if (posix_fallocate(descriptor, 0, static_cast<off_t>(size_of(ranks))) != 0) {
    close(descriptor);
    shm_unlink(name.c_str());
    return nullptr;
  }
  void* const memory = map(descriptor, size_of(ranks));
  if (!memory) {
    shm_unlink(name.c_str());
    return nullptr;
  }
  std::unique_ptr<SharedSegment> segment(new SharedSegment(name, ranks, memory));
  segment->is_to_be_removed_ = true;
  return segment;
}

std::unique_ptr<SharedSegment> SharedSegment::open(const std::string& name, int64_t ranks) {
  const int descriptor = shm_open(name.c_str(), O_RDWR | O_CLOEXEC, 0600);
  if (descriptor < 0) return nullptr;
  const auto bytes = size_of(ranks);
  if (lseek(descriptor, 0, SEEK_END) != static_cast<off_t>(bytes)) {
    close(descriptor);
    return nullptr;
  }
  void* const memory = map(descriptor, bytes);
  if (!memory) return nullptr;
  return std::unique_ptr<SharedSegment>(new SharedSegment(name, ranks, memory));
}

SharedSegment::SharedSegment(std::string name, int64_t ranks, void* memory)
    : name_(std::move(name)), ranks_(ranks), memory_(static_cast<unsigned char*>(memory)) {}

SharedSegment::~SharedSegment() {
  if (is_to_be_removed_) remove();
  munmap(memory_, size_of(ranks_));
}

void SharedSegment::remove() {
  shm_unlink(name_.c_str());
  is_to_be_removed_ = false;
}

// Zeros, as the system gives them, are the beginning of every counter.
SharedSegment::Place& SharedSegment::place(int64_t rank) const {
  return *reinterpret_cast<Place*>(memory_ + static_cast<size_t>(rank) * kPlaces);
}

SharedSegment::Ring& SharedSegment::ring(int64_t from, int64_t to) const {
  return *reinterpret_cast<Ring*>(memory_ + static_cast<size_t>(ranks_) * kPlaces +
                                  static_cast<size_t>(from * ranks_ + to) * kRing);
}

unsigned char* SharedSegment::bytes(int64_t from, int64_t to) const {
  return memory_ + static_cast<size_t>(ranks_) * kPlaces +
         static_cast<size_t>(ranks_ * ranks_) * kRing +
         static_cast<size_t>(from * ranks_ + to) * capacity(ranks_);
}

bool is_alive(int64_t process) {
  std::ifstream stat(fmt::format("/proc/{}/stat", process));
  std::string line;
  if (!std::getline(stat, line)) return false;
  // "123 (name) S ...": the name may hold anything
  const auto end = line.rfind(')');
  return end == std::string::npos || end + 2 >= line.size() ||
         (line[end + 2] != 'Z' && line[end + 2] != 'X');
}

}  // namespace halcyon::parallel
