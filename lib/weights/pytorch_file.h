// PyTorchFile: the tensors of a file that torch.save wrote (docs/model.md, section 2): the dictionary "task" in it,
// or the file itself.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "lib/weights/tensor_file.h"
#include "lib/weights/unpickler.h"
#include "lib/weights/zip_reader.h"

namespace ratplus::weights {

class PyTorchFile : public TensorFile {
 public:
  /// Throws Error naming the file, and the entry that is wrong.
  explicit PyTorchFile(const std::filesystem::path& file);

  const std::filesystem::path& path() const override { return zip_.path(); }
  const char* format() const override { return "PyTorch"; }
  const std::vector<StoredTensor>& tensors() const override { return tensors_; }
  std::string description() const override { return description_; }
  bool same_memory(std::size_t a, std::size_t b) const override;
  void read(std::size_t tensor, std::int64_t begin, std::span<float> out) override;
  void expect_one_reading() override { zip_.expect_one_reading(); }

 private:
  /// Where a tensor's elements are: index (i, j, ...) is element offset + i strides[0] + j strides[1] + ... of its record.
  struct Place {
    const ZipEntry* record = nullptr;
    std::int64_t offset = 0;
    std::vector<std::int64_t> strides;
    bool contiguous = false;
  };

  void check_byte_order(const std::string& folder);
  void read_state_dict(const Pickled& pickle, const std::string& folder);
  void add_tensor(std::string name, const Pickled& pickle, const Pickled::Object& tensor,
                  const std::string& folder);
  void read_run(const Place& place, StoredType type, std::int64_t first, std::span<float> out);
  void gather(std::size_t tensor, std::int64_t begin, std::span<float> out);
  const std::vector<char>& extent_of(std::size_t tensor);

  ZipReader zip_;
  std::vector<StoredTensor> tensors_;
  std::vector<Place> places_;
  std::string description_;
  std::vector<char> raw_;
  std::size_t extent_tensor_ = static_cast<std::size_t>(-1);
  std::vector<char> extent_;  ///< the bytes between the first and last element of one strided tensor
};

/// The name under which ratplus describes weights in a file of PyTorch's.
inline constexpr const char* description_key = "ratplus";

}  // namespace ratplus::weights
