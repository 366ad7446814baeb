// HDF5 behind small types that own what they open and turn every failure into an Error that names the file.
//
// Threads: HDF5 must never be entered by two threads at once unless it was built for that, whatever files
// they use. Every function here holds one process-wide lock for its duration, so a loader thread may read
// shards while the main thread writes a checkpoint, provided that nothing else in the process calls HDF5
// directly. One object is still for one thread at a time.
#pragma once

#include <hdf5.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/bf16.h"

namespace ratplus::hdf5 {

/// Owns one HDF5 identifier (file, group, dataset, dataspace, type, property list, attribute).
class Handle {
 public:
  using Close = herr_t (*)(hid_t);
  Handle() = default;
  Handle(hid_t id, Close closer) : id_(id), close_(closer) {}
  ~Handle();
  Handle(Handle&& other) noexcept;
  Handle& operator=(Handle&& other) noexcept;

  hid_t get() const { return id_; }
  bool open() const { return id_ >= 0; }
  /// Closes and returns whether that succeeded.
  bool close();
  /// Forgets the identifier and leaves it open in HDF5.
  void abandon() { id_ = H5I_INVALID_HID; }

 private:
  hid_t id_ = H5I_INVALID_HID;
  Close close_ = nullptr;
};

/// Element types, on disk (little-endian) and in memory.
enum class Element { float32, float64, float16, bfloat16, uint16, uint32, int32, int64 };
std::size_t bytes_of(Element element);

/// The bits of an IEEE half-precision number.
struct f16_t {
  std::uint16_t bits;
};

template <typename T>
inline constexpr Element element_of = [] {
  if constexpr (std::is_same_v<T, float>) {
    return Element::float32;
  } else if constexpr (std::is_same_v<T, double>) {
    return Element::float64;
  } else if constexpr (std::is_same_v<T, f16_t>) {
    return Element::float16;
  } else if constexpr (std::is_same_v<T, bf16_t>) {
    return Element::bfloat16;
  } else if constexpr (std::is_same_v<T, std::uint16_t>) {
    return Element::uint16;
  } else if constexpr (std::is_same_v<T, std::uint32_t>) {
    return Element::uint32;
  } else if constexpr (std::is_same_v<T, std::int32_t>) {
    return Element::int32;
  } else {
    static_assert(std::is_same_v<T, std::int64_t>, "no HDF5 element of this type");
    return Element::int64;
  }
}();

/// Storage layout of a dataset. Elements that are never written have no defined value.
struct Layout {
  std::int64_t chunk = 65536;  ///< elements; the unit of checksums, compression and caching
  int compression = 0;         ///< gzip level 1..9, 0 = none
  bool checksum = true;        ///< Fletcher-32 a chunk: a read of damaged data fails
  bool growable = false;       ///< Dataset::resize may make it longer
};

/// State shared by the objects of an open file.
struct FileState {
  std::filesystem::path name;     ///< as messages name it
  std::filesystem::path written;  ///< where it is written; empty of one that is open for reading
  /// Why writing failed, "" if it did not. HDF5 1.10 keeps half-written objects after a failed write and may
  /// crash when they are closed, so from then on nothing of the file is touched: its identifiers are left
  /// behind, open until the process ends, and File's destructor empties the file, whose room is free then.
  std::string failure;
};

/// An object with attributes: a file's root, a group, a dataset.
class Object {
 public:
  ~Object();
  Object(Object&&) noexcept = default;
  Object& operator=(Object&& other) noexcept;

  bool has_attribute(const std::string& name) const;
  /// Created, or replaced if there is one of this name.
  void set_attribute(const std::string& name, std::int64_t value);
  void set_attribute(const std::string& name, double value);
  void set_attribute(const std::string& name, std::string_view value);
  /// Throw Error if there is none of this name or it is not a scalar of this kind.
  std::int64_t integer_attribute(const std::string& name) const;
  double real_attribute(const std::string& name) const;
  std::string string_attribute(const std::string& name) const;

  const std::filesystem::path& file() const { return state_->name; }

 protected:
  using State = std::shared_ptr<FileState>;
  Object(State state, Handle handle) : state_(std::move(state)), handle_(std::move(handle)) {}

  /// Throws, now and in every later write to this file.
  [[noreturn]] void fail_writing(std::string_view what) const;
  void require_writable() const;

  void write_attribute(const std::string& name, hid_t file_type, hid_t memory_type, const void* value);
  Handle open_attribute(const std::string& name) const;

  State state_;
  Handle handle_;
};

/// A one-dimensional array of numbers.
class Dataset : public Object {
 public:
  ~Dataset();
  Dataset(Dataset&&) noexcept = default;
  Dataset& operator=(Dataset&&) noexcept = default;

  std::int64_t size() const { return size_; }
  const std::string& name() const { return name_; }
  bool holds_integers() const;
  /// Whether integers are unsigned.
  bool holds_unsigned() const;
  /// Throws Error naming what is missing unless every element was written, in this file or in those that an external or
  /// a virtual dataset takes them from: HDF5 reads fill values for the others. Costs the reading of the chunks' index.
  void require_written() const;
  /// Bytes of an element on disk.
  std::size_t element_bytes() const;
  /// Growable datasets only.
  void resize(std::int64_t size);
  /// Byte of the file at which the chunk begins that holds this element; -1 where there is none.
  std::int64_t place_of(std::int64_t element) const;

  /// Elements [begin, begin + out.size()), converted to T if they are of another type on disk.
  template <typename T>
  void read(std::int64_t begin, std::span<T> out) const {
    read_range(begin, static_cast<std::int64_t>(out.size()), element_of<T>, out.data());
  }
  template <typename T>
  void write(std::int64_t begin, std::span<const T> in) {
    write_range(begin, static_cast<std::int64_t>(in.size()), element_of<T>, in.data());
  }

 private:
  friend class Group;
  Dataset(State state, Handle handle, std::string name);
  Handle select(std::int64_t begin, std::int64_t count) const;
  void read_range(std::int64_t begin, std::int64_t count, Element element, void* out) const;
  void write_range(std::int64_t begin, std::int64_t count, Element element, const void* in);

  std::string name_;
  std::int64_t size_ = 0;
  bool written_ = false;  ///< by this object
};

/// A named collection of datasets and groups. Names may be paths ("blocks/3/weights").
class Group : public Object {
 public:
  bool has(const std::string& name) const;
  /// Names of the direct members, sorted.
  std::vector<std::string> names() const;
  /// Paths of all datasets below, sorted by name in each group.
  std::vector<std::string> datasets() const;
  /// Groups on the way are made too.
  Group create_group(const std::string& name);
  Group group(const std::string& name) const;
  Dataset create_dataset(const std::string& name, Element element, std::int64_t size,
                         const Layout& layout = {});
  /// Throws Error if there is none of this name, it has more than one dimension, or is packed by a filter that the
  /// library lacks.
  Dataset dataset(const std::string& name) const;

 protected:
  using Object::Object;

 private:
  void require_dataset(const std::string& name) const;
};

/// An HDF5 file and its root group. Closing it closes every group and dataset opened from it.
class File : public Group {
 public:
  /// Replaces a file of this name. Metadata are written in HDF5's 1.10 format, which has checksums. Messages
  /// name `shown_as` instead if it is given (a file that is written beside its final name).
  static File create(const std::filesystem::path& file, const std::filesystem::path& shown_as = {});
  /// For reading.
  static File open(const std::filesystem::path& file);

  ~File();
  File(File&&) noexcept = default;
  File& operator=(File&&) noexcept = default;

  /// Throws Error if the last bytes cannot be written; a destructor cannot say so, so close what was written.
  void close();
  bool is_open() const { return handle_.open(); }

 private:
  using Group::Group;
};

/// The attribute "crc32"; nothing where there is none.
std::optional<std::uint32_t> checksum_attribute(const Object& object);

/// Between two calls of many, made by a thread that works in the background: whoever has just let the process's lock go
/// would have it again before a thread that waits for it wakes up.
void let_others_in();

/// The version of the library at run time: "1.10.8".
std::string version();

}  // namespace ratplus::hdf5
