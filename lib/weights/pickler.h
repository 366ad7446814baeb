// Pickler: writes the few things of a state dict as torch.save pickles them (protocol 2).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/weights/tensor_file.h"

namespace ratplus::weights {

class Pickler {
 public:
  Pickler();

  /// Keys and values follow in turn, until end_dictionary().
  void begin_dictionary();
  void begin_ordered_dictionary();
  void end_dictionary();
  void text(std::string_view value);
  /// A contiguous tensor, all of the record data/`record`.
  void tensor(StoredType type, std::size_t record, std::span<const std::int64_t> shape);
  /// The whole pickle.
  std::string finish();

 private:
  void name(std::string_view module, std::string_view name);
  void integer(std::int64_t value);
  void tuple(std::span<const std::int64_t> values);

  std::string bytes_;
};

}  // namespace ratplus::weights
