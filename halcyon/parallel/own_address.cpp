// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/own_address.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "halcyon/parallel/launch.h"

namespace halcyon::parallel {
namespace {

constexpr const char* kLoopback = "127.0.0.1";

bool is_loopback(const sockaddr* address) {
  if (address->sa_family == AF_INET) {
    const auto& v4 = *reinterpret_cast<const sockaddr_in*>(address);
    return ntohl(v4.sin_addr.s_addr) >> 24 == 127;
  }
  const auto& v6 = *reinterpret_cast<const sockaddr_in6*>(address);
  return IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr) || IN6_IS_ADDR_LINKLOCAL(&v6.sin6_addr);
}

// Of use to other machines, as text; else empty.
std::string text_of(const sockaddr* address, socklen_t size) {
  char text[NI_MAXHOST];
  if (is_loopback(address) ||
      getnameinfo(address, size, text, sizeof text, nullptr, 0, NI_NUMERICHOST) != 0) {
    return {};
  }
  return text;
}

// The address from which this machine reaches a host: what a routing table says, where the
// machine's own name may mean another of its networks, or none. Nothing is sent.
std::string address_towards(const std::string& host, int port) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_DGRAM;
  if (getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) return {};
  std::string address;
  for (auto* one = found; one && address.empty(); one = one->ai_next) {
    const int fd = socket(one->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) continue;
    sockaddr_storage own{};
    socklen_t size = sizeof own;
    auto* const name = reinterpret_cast<sockaddr*>(&own);
    if (connect(fd, one->ai_addr, one->ai_addrlen) == 0 && getsockname(fd, name, &size) == 0) {
      address = text_of(name, size);
    }
    close(fd);
  }
  freeaddrinfo(found);
  return address;
}

// Of an interface that is up, for want of a host to reach; the default route's before others.
std::string address_of_interface() {
  constexpr const char* kSomewhere = "192.0.2.1";  // of no network (RFC 5737)
  if (auto address = address_towards(kSomewhere, 9); !address.empty()) return address;
  ifaddrs* all = nullptr;
  if (getifaddrs(&all) != 0) return {};
  std::string address;
  for (const auto* one = all; one && address.empty(); one = one->ifa_next) {
    if (!one->ifa_addr || !(one->ifa_flags & IFF_UP)) continue;
    const auto family = one->ifa_addr->sa_family;
    if (family != AF_INET && family != AF_INET6) continue;
    address =
        text_of(one->ifa_addr, family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6));
  }
  freeifaddrs(all);
  return address;
}

// What ranks have in common that reach one another by the loopback.
std::string network_stack() {
  std::string boot;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  struct stat about {};
  if (stat("/proc/self/ns/net", &about) != 0) return fmt::format("{} {}", boot, getpid());
  return fmt::format("{} {}", boot, about.st_ino);
}

std::vector<uint8_t> bytes_of(const std::string& text) {
  return {text.begin(), text.end()};
}

std::string text_in(c10d::Store& store, const std::string& key) {
  const auto bytes = store.get(key);
  return {bytes.begin(), bytes.end()};
}

}  // namespace

std::string own_address(c10d::Store& store, const Launch& launch) {
  const std::string kFirst = "halcyon network", kOthers = "halcyon other networks",
                    kAddress = "halcyon address", kSeen = "halcyon ranks", kAll = "halcyon all";
  const auto network = network_stack();
  if (launch.rank == 0) store.set(kFirst, bytes_of(network));
  if (text_in(store, kFirst) != network) store.add(kOthers, 1);
  auto address = launch.store_file.empty() ? address_towards(launch.host, launch.port)
                                           : address_of_interface();
  if (!address.empty()) store.set(kAddress, bytes_of(address));
  // the last to come tells all
  if (store.add(kSeen, 1) == launch.size) {
    store.set(kAll, bytes_of(store.add(kOthers, 0) == 0 ? "one" : "several"));
  }
  if (text_in(store, kAll) == "one") return kLoopback;
  // rank 0's machine knows no way to itself, but one to any of the others
  if (address.empty() && store.check({kAddress})) {
    address = address_towards(text_in(store, kAddress), 9);
  }
  return address.empty() ? address_of_interface() : address;
}

}  // namespace halcyon::parallel
