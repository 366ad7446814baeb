// Unpickler: reads what torch.save pickles, and nothing else. Nothing is imported, called or executed: a pickle that
// names anything but tensors, dictionaries and plain values is refused with that name.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

namespace ratplus::weights {

/// A pickled object and all that it refers to. Objects refer to each other by number, so that cycles do no harm; text
/// is a view of the pickle, which must outlive this.
class Pickled {
 public:
  using Ref = std::uint32_t;
  enum class Kind : std::uint8_t {
    none,
    boolean,  ///< number: 0 or 1
    integer,  ///< number
    real,
    text,  ///< strings, and bytes
    list,  ///< items; sets too
    tuple,
    dictionary,  ///< items: key, value, key, value, ...
    name,        ///< text: "torch.FloatStorage", one of those that are known
    storage,     ///< text: its key; number: its elements; items: its type (a name)
    tensor,      ///< number: first element; items: storage, sizes, strides (tuples)
    other,       ///< a plain value that no checkpoint needs (an integer beyond 64 bits)
  };
  struct Object {
    Kind kind = Kind::none;
    std::int64_t number = 0;
    double real = 0;
    std::string_view text = {};
    std::vector<Ref> items = {};
  };

  const Object& root() const { return (*this)[root_]; }
  const Object& operator[](Ref ref) const { return objects_[ref]; }
  /// The value of a dictionary's key; null if there is none, or if it is no dictionary.
  const Object* find(const Object& dictionary, std::string_view key) const;

 private:
  friend class Unpickler;
  std::vector<Object> objects_;
  std::deque<std::string> names_;
  Ref root_ = 0;
};

/// Throws Error, beginning with `name` and the byte, for what is damaged or refused. Memory is in proportion to the
/// pickle's size, whatever it says.
Pickled unpickle(std::string_view pickle, std::string_view name);

/// Text of a file, fit for a message: short, and without control characters.
std::string printable(std::string_view text);

}  // namespace ratplus::weights
