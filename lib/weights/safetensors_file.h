// SafetensorsFile: the tensors of one safetensors file, or of several that an index lists.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/files/byte_file.h"
#include "lib/weights/safetensors_header.h"
#include "lib/weights/tensor_file.h"

namespace ratplus::weights {

inline constexpr const char* safetensors_suffix = ".safetensors";
inline constexpr const char* safetensors_index_suffix = ".safetensors.index.json";

class SafetensorsFile : public TensorFile {
 public:
  /// A file, or the index of several beside it (by its suffix). Throws Error naming the file.
  explicit SafetensorsFile(const std::filesystem::path& file);

  const std::filesystem::path& path() const override { return path_; }
  const char* format() const override { return "safetensors"; }
  const std::vector<StoredTensor>& tensors() const override { return tensors_; }
  std::string description() const override { return description_; }
  /// Each has bytes of its own.
  bool same_memory(std::size_t, std::size_t) const override { return false; }
  void read(std::size_t tensor, std::int64_t begin, std::span<float> out) override;
  void expect_one_reading() override {
    for (auto& file : files_) file.expect_one_reading();
  }

 private:
  struct Place {
    std::size_t file = 0;
    std::int64_t offset = 0;  ///< in the file
  };

  void add_file(const std::filesystem::path& file);
  void read_index();

  std::filesystem::path path_;
  std::vector<ByteReader> files_;
  std::vector<StoredTensor> tensors_;
  std::vector<Place> places_;
  std::string description_;
  std::vector<char> raw_;
};

/// The key of a header's metadata under which ratplus describes the weights.
inline constexpr const char* safetensors_description_key = "ratplus";

}  // namespace ratplus::weights
