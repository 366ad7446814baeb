// Host memory of this process.
#pragma once

#include <cstdint>

namespace ratplus {

/// Bytes of this process that are in host memory now (resident set), or -1 if unknown.
std::int64_t resident_bytes();

}  // namespace ratplus
