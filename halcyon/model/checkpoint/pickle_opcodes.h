// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace halcyon::checkpoint {

// The opcodes of Python's pickle (PEP 307, 3154, 574) that a state dict needs.
enum class Opcode : std::uint8_t {
  mark = '(',
  stop = '.',
  binint = 'J',
  binint1 = 'K',
  binint2 = 'M',
  none = 'N',
  binpersid = 'Q',
  reduce = 'R',
  binunicode = 'X',
  empty_tuple = ')',
  build = 'b',
  global = 'c',
  empty_dict = '}',
  binget = 'h',
  long_binget = 'j',
  binput = 'q',
  long_binput = 'r',
  setitem = 's',
  tuple = 't',
  setitems = 'u',
  proto = 0x80,
  tuple1 = 0x85,
  tuple2 = 0x86,
  tuple3 = 0x87,
  newtrue = 0x88,
  newfalse = 0x89,
  long1 = 0x8a,
  short_binunicode = 0x8c,
  binunicode8 = 0x8d,
  stack_global = 0x93,
  memoize = 0x94,
  frame = 0x95,
};

// The name that Python's pickletools gives any opcode, also those that are refused; "unknown" for
// what is none.
const char* opcode_name(std::uint8_t code);

}  // namespace halcyon::checkpoint
