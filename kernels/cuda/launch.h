// What launching a kernel takes.
#pragma once

#include <cstdint>

namespace ratplus::cuda {

/// Blocks that `count` things need where a block takes `block` of them.
constexpr std::int64_t blocks_of(std::int64_t count, std::int64_t block) {
  return (count + block - 1) / block;
}

}  // namespace ratplus::cuda
