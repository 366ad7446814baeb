// TensorFile: named tensors in files of another system (PyTorch, safetensors), read piece by piece as float32.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lib/checkpoint/stored_type.h"

namespace ratplus::weights {

using checkpoint::StoredType;

struct StoredTensor {
  std::string name;
  std::vector<std::int64_t> shape;
  std::string type_name;           ///< as messages name it: "float32", "int64"
  std::optional<StoredType> type;  ///< empty: of a kind that weights are not stored in

  /// Elements; -1 where 64 bits cannot count them.
  std::int64_t numel() const;
};

/// A tensor's name without the components that wrappers of a module put before it or into it: those of torch.compile,
/// of data-parallel training and of activation checkpoints.
std::string without_wrappers(std::string_view name);

class TensorFile {
 public:
  virtual ~TensorFile() = default;

  virtual const std::filesystem::path& path() const = 0;
  virtual const char* format() const = 0;  ///< "PyTorch", "safetensors"
  virtual const std::vector<StoredTensor>& tensors() const = 0;
  /// The description beside the weights (description.h); empty if ratplus did not write them.
  virtual std::string description() const = 0;
  /// Whether two tensors are one and the same memory.
  virtual bool same_memory(std::size_t a, std::size_t b) const = 0;
  /// Elements [begin, begin + out.size()), row-major.
  virtual void read(std::size_t tensor, std::int64_t begin, std::span<float> out) = 0;
  /// From now on each element is read once, in the order of the file: what was read leaves the page cache behind.
  virtual void expect_one_reading() = 0;
};

}  // namespace ratplus::weights
