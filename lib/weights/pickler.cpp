#include "lib/weights/pickler.h"

#include <limits>

#include "base/error.h"
#include "lib/weights/element_type.h"

namespace ratplus::weights {
namespace {

template <typename T>
std::string little_endian(T value) {
  std::string bytes;
  for (std::size_t i = 0; i < sizeof(T); ++i)
    bytes += static_cast<char>(static_cast<std::uint64_t>(value) >> 8 * i & 0xffu);
  return bytes;
}

}  // namespace

// Opcodes as in pickletools.py: each line below is one of them, or a value.

Pickler::Pickler() : bytes_("\x80\x02") {}

void Pickler::begin_dictionary() {
  bytes_ += "}(";  // EMPTY_DICT, MARK
}

void Pickler::begin_ordered_dictionary() {
  name("collections", "OrderedDict");
  bytes_ += ")R(";  // EMPTY_TUPLE, REDUCE, MARK
}

void Pickler::end_dictionary() {
  bytes_ += 'u';  // SETITEMS
}

void Pickler::text(std::string_view value) {
  require(value.size() < std::numeric_limits<std::uint32_t>::max(), "a text of {} bytes", value.size());
  bytes_ += 'X';  // BINUNICODE
  bytes_ += little_endian(static_cast<std::uint32_t>(value.size()));
  bytes_ += value;
}

void Pickler::name(std::string_view module, std::string_view name) {
  bytes_ += fmt::format("c{}\n{}\n", module, name);  // GLOBAL
}

void Pickler::integer(std::int64_t value) {
  if (value >= 0 && value <= std::numeric_limits<std::int32_t>::max()) {
    bytes_ += 'J';  // BININT
    bytes_ += little_endian(static_cast<std::uint32_t>(value));
  } else {
    bytes_ += "\x8a\x08";  // LONG1 of 8 bytes
    bytes_ += little_endian(value);
  }
}

void Pickler::tuple(std::span<const std::int64_t> values) {
  bytes_ += '(';
  for (const auto value : values) integer(value);
  bytes_ += 't';
}

void Pickler::tensor(StoredType type, std::size_t record, std::span<const std::int64_t> shape) {
  std::vector<std::int64_t> strides(shape.size());
  std::int64_t count = 1;
  for (std::size_t d = shape.size(); d-- > 0; count *= shape[d]) strides[d] = count;
  name("torch._utils", "_rebuild_tensor_v2");
  bytes_ += "((";
  text("storage");
  name("torch", element_type_of(type).pytorch.substr(std::string_view("torch.").size()));
  text(std::to_string(record));
  text("cpu");
  integer(count);
  bytes_ += "tQ";  // TUPLE, BINPERSID
  integer(0);      // first element
  tuple(shape);
  tuple(strides);
  bytes_ += '\x89';  // NEWFALSE: requires no gradient
  name("collections", "OrderedDict");
  bytes_ += ")RtR";  // no hooks
}

std::string Pickler::finish() {
  return std::move(bytes_) + '.';
}

}  // namespace ratplus::weights
