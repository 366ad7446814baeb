// The header of a safetensors file: 8 bytes of its length, then JSON: for each tensor its type, shape and bytes.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "lib/weights/tensor_file.h"

namespace ratplus::weights {

struct SafetensorsEntry {
  StoredTensor tensor;
  std::int64_t begin = 0;  ///< bytes after the header
  std::int64_t end = 0;
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;  ///< in the order of their bytes
  std::map<std::string, std::string> metadata;
};

inline constexpr std::int64_t safetensors_length_bytes = 8;

/// Reads the JSON of a header that `data_bytes` of tensors follow. Throws Error beginning with `name`; a header that
/// leaves bytes out or has two tensors share some is damaged.
SafetensorsHeader parse_safetensors_header(std::string_view json, std::int64_t data_bytes,
                                           const std::string& name);
/// The length and the JSON, padded so that the tensors' bytes begin at a multiple of 8.
std::string write_safetensors_header(const SafetensorsHeader& header);

}  // namespace ratplus::weights
