// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "halcyon/parallel/group.h"
#include "halcyon/parallel/shared_queues.h"

namespace c10d {
class Work;
}

namespace halcyon::parallel {

// One operation's messages between ranks: through shared memory where all ranks of the group are on
// one machine (companion.h), else by the group's backend. Both ends must have agreed on every size
// before (see agreement.h): gloo ends a process that receives more than it expects.
//
//   Exchange exchange(group, "halo_exchange", tag);
//   exchange.receive(1, from_above);
//   exchange.send(1, my_last_rows);
//   exchange.post();
//   ...                     // work on what is here already
//   exchange.wait();
//
// Tensors are dense and all on one device. Messages between two ranks arrive in the order in which
// they were named. A dead or silent peer is an Error(communication) with the operation, this rank,
// the peer and the seconds since post(), within the group's timeout.
class Exchange {
 public:
  // counted: in traffic().
  Exchange(Group group, std::string operation, int64_t tag, bool counted = true);
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;
  ~Exchange();

  void receive(int64_t peer, at::Tensor into);
  void send(int64_t peer, at::Tensor from);
  void post();
  void wait();

 private:
  struct Message {
    int64_t peer;
    at::Tensor tensor;
  };
  struct Pending {
    int64_t peer;
    c10::intrusive_ptr<c10d::Work> work;
  };
  void post_shared();
  void wait_shared();
  double timeout_seconds() const;
  [[noreturn]] void fail(int64_t peer, const std::string& why);
  void abandon() noexcept;

  Group group_;
  std::string operation_;
  int64_t tag_;
  bool counted_;
  std::vector<Message> receives_, sends_;
  std::vector<Pending> pending_;
  SharedQueues* queues_ = nullptr;  // where the messages go through shared memory
  std::vector<SharedQueues::Receive> shared_receives_;
  std::vector<SharedQueues::Send> shared_sends_;
  std::vector<SharedQueues::Send*> sending_;
  std::chrono::steady_clock::time_point begun_;
};

// Whether work between post() and wait() gains time: where this machine has fewer cores than the
// ranks' threads and gloo's, the messages would wait for the work instead.
bool has_cores_to_overlap(const Group& group);

// f() of a collective of c10d's own, its failure told in the same way; the peer is not known then.
// what: Error's operation.
void run_collective(const Group& group, const std::string& operation,
                    const std::function<c10::intrusive_ptr<c10d::Work>()>& f);

// Bytes and messages that this process has sent to others since it began, as counted here: all that
// this room moves goes through Exchange and run_collective. The few bytes by which the ranks of a
// group meet at their first operation are not counted.
struct Traffic {
  int64_t messages = 0;
  int64_t bytes = 0;
};
Traffic traffic();

}  // namespace halcyon::parallel
