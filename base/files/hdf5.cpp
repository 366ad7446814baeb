#include "base/files/hdf5.h"

#include <fmt/core.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <system_error>
#include <thread>
#include <utility>

#include "base/error.h"
#include "base/files/foreign_file.h"
#include "base/files/hdf5_lock.h"
#include "base/files/pending_file.h"

namespace ratplus::hdf5 {
namespace {

/// HDF5's error stack as one short text.
struct Reason {
  std::string text;      ///< of the innermost failure: its cause
  int error_number = 0;  ///< errno of the system call that failed, if one did
};

herr_t collect_reason(unsigned /*depth*/, const H5E_error2_t* entry, void* result) {
  auto& reason = *static_cast<Reason*>(result);
  const std::string_view description = entry->desc != nullptr ? entry->desc : "";
  if (reason.text.empty()) reason.text = description;
  constexpr std::string_view mark = "errno = ";
  if (const auto at = description.find(mark); at != std::string_view::npos && reason.error_number == 0) {
    const char* digits = description.data() + at + mark.size();
    std::from_chars(digits, description.data() + description.size(), reason.error_number);
  }
  return 0;
}

Reason take_reason() {
  Reason reason;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, &collect_reason, &reason);  // innermost first
  H5Eclear2(H5E_DEFAULT);
  if (reason.error_number != 0) reason.text = std::strerror(reason.error_number);
  if (reason.text.empty()) reason.text = "HDF5 gives no reason";
  return reason;
}

[[noreturn]] void fail_reading(const std::filesystem::path& file, std::string_view what) {
  const Reason reason = take_reason();
  fail("{}: cannot read {} ({}); the file is damaged or not what it should be, so make or copy it again",
       file.string(), what, reason.text);
}

/// A floating-point type of 16 bits, made once; HDF5 and its readers convert it to and from others.
hid_t type_of_16_bits(std::size_t exponent_bits, std::size_t bias) {
  const std::size_t fraction_bits = 15 - exponent_bits;
  const hid_t type = H5Tcopy(H5T_IEEE_F32LE);
  H5Tset_fields(type, 15, fraction_bits, exponent_bits, 0, fraction_bits);
  H5Tset_ebias(type, bias);
  H5Tset_size(type, 2);
  return type;
}

hid_t float16_type() {
  static const hid_t type = type_of_16_bits(5, 15);
  return type;
}

hid_t bfloat16_type() {
  static const hid_t type = type_of_16_bits(8, 127);
  return type;
}

hid_t disk_type(Element element) {
  switch (element) {
    case Element::float16:
      return float16_type();
    case Element::bfloat16:
      return bfloat16_type();
    case Element::float32:
      return H5T_IEEE_F32LE;
    case Element::float64:
      return H5T_IEEE_F64LE;
    case Element::uint16:
      return H5T_STD_U16LE;
    case Element::uint32:
      return H5T_STD_U32LE;
    case Element::int32:
      return H5T_STD_I32LE;
    case Element::int64:
      return H5T_STD_I64LE;
  }
  return H5I_INVALID_HID;
}

hid_t memory_type(Element element) {
  switch (element) {
    case Element::float16:
    case Element::bfloat16:
      return disk_type(element);
    case Element::float32:
      return H5T_NATIVE_FLOAT;
    case Element::float64:
      return H5T_NATIVE_DOUBLE;
    case Element::uint16:
      return H5T_NATIVE_UINT16;
    case Element::uint32:
      return H5T_NATIVE_UINT32;
    case Element::int32:
      return H5T_NATIVE_INT32;
    case Element::int64:
      return H5T_NATIVE_INT64;
  }
  return H5I_INVALID_HID;
}

/// A fixed-length UTF-8 string type of `bytes` bytes.
Handle string_type(std::size_t bytes) {
  Handle type(H5Tcopy(H5T_C_S1), &H5Tclose);
  H5Tset_size(type.get(), std::max<std::size_t>(bytes, 1));
  H5Tset_strpad(type.get(), H5T_STR_NULLPAD);
  H5Tset_cset(type.get(), H5T_CSET_UTF8);
  return type;
}

}  // namespace

Handle file_access() {
  Handle access(H5Pcreate(H5P_FILE_ACCESS), &H5Pclose);
  H5Pset_libver_bounds(access.get(), H5F_LIBVER_V110, H5F_LIBVER_V110);
  // Files get their names only when complete, so nobody meets a file being written; and cluster file systems
  // often have no locks to give.
  H5Pset_file_locking(access.get(), false, true);
  H5Pset_fclose_degree(access.get(), H5F_CLOSE_STRONG);
  return access;
}

Handle::~Handle() {
  close();
}

Handle::Handle(Handle&& other) noexcept
    : id_(std::exchange(other.id_, H5I_INVALID_HID)), close_(other.close_) {}

Handle& Handle::operator=(Handle&& other) noexcept {
  if (this != &other) {
    close();
    id_ = std::exchange(other.id_, H5I_INVALID_HID);
    close_ = other.close_;
  }
  return *this;
}

bool Handle::close() {
  if (id_ < 0) return true;
  const Lock lock;
  return close_(std::exchange(id_, H5I_INVALID_HID)) >= 0;
}

std::size_t bytes_of(Element element) {
  const Lock lock;
  return H5Tget_size(disk_type(element));
}

// Objects, and what becomes of them when a write fails.

Object::~Object() {
  if (state_ != nullptr && !state_->failure.empty()) handle_.abandon();
}

Object& Object::operator=(Object&& other) noexcept {
  if (this != &other) {
    if (state_ != nullptr && !state_->failure.empty()) handle_.abandon();
    handle_ = std::move(other.handle_);
    state_ = std::move(other.state_);
  }
  return *this;
}

void Object::fail_writing(std::string_view what) const {
  const Reason reason = take_reason();
  state_->failure = fmt::format("{}: cannot write {}: {}{}", state_->name.string(), what, reason.text,
                                write_advice(reason.error_number));
  throw Error(state_->failure);
}

void Object::require_writable() const {
  if (!state_->failure.empty()) throw Error(state_->failure);
}

// Attributes.

bool Object::has_attribute(const std::string& name) const {
  const Lock lock;
  const htri_t there = H5Aexists(handle_.get(), name.c_str());
  if (there < 0) fail_reading(state_->name, fmt::format("attribute \"{}\"", name));
  return there > 0;
}

void Object::write_attribute(const std::string& name, hid_t file_type, hid_t memory_type, const void* value) {
  const Lock lock;
  require_writable();
  if (has_attribute(name)) H5Adelete(handle_.get(), name.c_str());
  const Handle scalar(H5Screate(H5S_SCALAR), &H5Sclose);
  const Handle attribute(
      H5Acreate2(handle_.get(), name.c_str(), file_type, scalar.get(), H5P_DEFAULT, H5P_DEFAULT), &H5Aclose);
  if (!attribute.open() || H5Awrite(attribute.get(), memory_type, value) < 0) {
    fail_writing(fmt::format("attribute \"{}\"", name));
  }
}

void Object::set_attribute(const std::string& name, std::int64_t value) {
  const Lock lock;
  write_attribute(name, H5T_STD_I64LE, H5T_NATIVE_INT64, &value);
}

void Object::set_attribute(const std::string& name, double value) {
  const Lock lock;
  write_attribute(name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, &value);
}

void Object::set_attribute(const std::string& name, std::string_view value) {
  const Lock lock;
  // Fixed length: such a string lies in the object's header, under its checksum; HDF5's heap of
  // variable-length strings has none.
  const Handle type = string_type(value.size());
  const std::string terminated(value);  // never a null pointer, even for an empty view
  write_attribute(name, type.get(), type.get(), terminated.c_str());
}

Handle Object::open_attribute(const std::string& name) const {
  if (!has_attribute(name)) fail("{}: has no attribute \"{}\"", state_->name.string(), name);
  Handle attribute(H5Aopen(handle_.get(), name.c_str(), H5P_DEFAULT), &H5Aclose);
  if (!attribute.open()) fail_reading(state_->name, fmt::format("attribute \"{}\"", name));
  const Handle space(H5Aget_space(attribute.get()), &H5Sclose);
  if (H5Sget_simple_extent_npoints(space.get()) != 1) {
    fail("{}: attribute \"{}\" is not a single value", state_->name.string(), name);
  }
  return attribute;
}

namespace {

void require_class(const Handle& attribute, std::initializer_list<H5T_class_t> wanted,
                   const std::filesystem::path& file, const std::string& name, std::string_view kind) {
  const Handle type(H5Aget_type(attribute.get()), &H5Tclose);
  const H5T_class_t found = H5Tget_class(type.get());
  if (std::find(wanted.begin(), wanted.end(), found) == wanted.end()) {
    fail("{}: attribute \"{}\" is not {}", file.string(), name, kind);
  }
}

}  // namespace

std::int64_t Object::integer_attribute(const std::string& name) const {
  const Lock lock;
  const Handle attribute = open_attribute(name);
  require_class(attribute, {H5T_INTEGER}, state_->name, name, "an integer");
  std::int64_t value = 0;
  if (H5Aread(attribute.get(), H5T_NATIVE_INT64, &value) < 0) fail_reading(state_->name, "attribute " + name);
  return value;
}

double Object::real_attribute(const std::string& name) const {
  const Lock lock;
  const Handle attribute = open_attribute(name);
  require_class(attribute, {H5T_FLOAT, H5T_INTEGER}, state_->name, name, "a number");
  double value = 0;
  if (H5Aread(attribute.get(), H5T_NATIVE_DOUBLE, &value) < 0)
    fail_reading(state_->name, "attribute " + name);
  return value;
}

std::string Object::string_attribute(const std::string& name) const {
  const Lock lock;
  const Handle attribute = open_attribute(name);
  require_class(attribute, {H5T_STRING}, state_->name, name, "a string");
  const Handle type(H5Aget_type(attribute.get()), &H5Tclose);
  if (H5Tis_variable_str(type.get()) > 0) {  // as h5py writes str
    char* text = nullptr;
    if (H5Aread(attribute.get(), type.get(), &text) < 0) fail_reading(state_->name, "attribute " + name);
    std::string value(text != nullptr ? text : "");
    H5free_memory(text);
    return value;
  }
  std::string value(H5Tget_size(type.get()), '\0');
  if (H5Aread(attribute.get(), type.get(), value.data()) < 0) fail_reading(state_->name, "attribute " + name);
  value.resize(std::min(value.size(), value.find('\0')));  // padding
  return value;
}

// Datasets.

Dataset::Dataset(State state, Handle handle, std::string name)
    : Object(std::move(state), std::move(handle)), name_(std::move(name)) {
  const Handle space(H5Dget_space(handle_.get()), &H5Sclose);
  if (!space.open()) fail_reading(state_->name, fmt::format("dataset \"{}\"", name_));
  const int rank = H5Sget_simple_extent_ndims(space.get());
  if (rank != 1)
    fail("{}: dataset \"{}\" has {} dimensions, not one; store it flat", state_->name.string(), name_, rank);
  size_ = H5Sget_simple_extent_npoints(space.get());
}

Dataset::~Dataset() {
  const Lock lock;
  // Flushed before it is closed, because a close that cannot flush leaves HDF5 in pieces.
  if (!handle_.open() || !written_ || !state_->failure.empty() || H5Dflush(handle_.get()) >= 0) return;
  try {
    fail_writing(fmt::format("dataset \"{}\"", name_));
  } catch (const Error&) {
    // Kept in the state: File::close throws it.
  }
}

bool Dataset::holds_integers() const {
  const Lock lock;
  const Handle type(H5Dget_type(handle_.get()), &H5Tclose);
  return H5Tget_class(type.get()) == H5T_INTEGER;
}

std::size_t Dataset::element_bytes() const {
  const Lock lock;
  const Handle type(H5Dget_type(handle_.get()), &H5Tclose);
  return H5Tget_size(type.get());
}

void Dataset::resize(std::int64_t size) {
  const Lock lock;
  require_writable();
  written_ = true;
  const auto extent = static_cast<hsize_t>(size);
  if (H5Dset_extent(handle_.get(), &extent) < 0) {
    fail_writing(fmt::format("dataset \"{}\" ({} elements)", name_, size));
  }
  size_ = size;
}

std::int64_t Dataset::place_of(std::int64_t element) const {
  const Lock lock;
  const Handle create(H5Dget_create_plist(handle_.get()), &H5Pclose);
  hsize_t chunk = 0;
  if (H5Pget_layout(create.get()) != H5D_CHUNKED || H5Pget_chunk(create.get(), 1, &chunk) != 1) return -1;
  const hsize_t first = static_cast<hsize_t>(element) / chunk * chunk;
  haddr_t place = HADDR_UNDEF;
  hsize_t bytes = 0;
  if (H5Dget_chunk_info_by_coord(handle_.get(), &first, nullptr, &place, &bytes) < 0) H5Eclear2(H5E_DEFAULT);
  return place == HADDR_UNDEF ? -1 : static_cast<std::int64_t>(place);
}

/// The file's dataspace with [begin, begin + count) selected.
Handle Dataset::select(std::int64_t begin, std::int64_t count) const {
  require(begin >= 0 && count >= 0 && begin <= size_ - count,
          "{}: range [{}, {}) is outside dataset \"{}\" of {} elements", state_->name.string(), begin,
          begin + count, name_, size_);
  Handle space(H5Dget_space(handle_.get()), &H5Sclose);
  const auto start = static_cast<hsize_t>(begin);
  const auto extent = static_cast<hsize_t>(count);
  H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, &start, nullptr, &extent, nullptr);
  return space;
}

void Dataset::read_range(std::int64_t begin, std::int64_t count, Element element, void* out) const {
  const Lock lock;
  const Handle selected = select(begin, count);
  if (count == 0) return;
  const auto extent = static_cast<hsize_t>(count);
  const Handle memory(H5Screate_simple(1, &extent, nullptr), &H5Sclose);
  if (H5Dread(handle_.get(), memory_type(element), memory.get(), selected.get(), H5P_DEFAULT, out) < 0) {
    fail_reading(state_->name,
                 fmt::format("elements [{}, {}) of dataset \"{}\"", begin, begin + count, name_));
  }
}

void Dataset::write_range(std::int64_t begin, std::int64_t count, Element element, const void* in) {
  const Lock lock;
  require_writable();
  const Handle selected = select(begin, count);
  if (count == 0) return;
  const auto extent = static_cast<hsize_t>(count);
  const Handle memory(H5Screate_simple(1, &extent, nullptr), &H5Sclose);
  written_ = true;
  if (H5Dwrite(handle_.get(), memory_type(element), memory.get(), selected.get(), H5P_DEFAULT, in) < 0) {
    fail_writing(fmt::format("elements [{}, {}) of dataset \"{}\"", begin, begin + count, name_));
  }
}

// Groups.

bool Group::has(const std::string& name) const {
  const Lock lock;
  // H5Lexists wants every group on the way to exist, so each prefix of the path is asked for in turn.
  for (std::size_t slash = name.find('/', 1);; slash = name.find('/', slash + 1)) {
    const std::string prefix = name.substr(0, slash);
    const htri_t there = H5Lexists(handle_.get(), prefix.c_str(), H5P_DEFAULT);
    if (there < 0) fail_reading(state_->name, fmt::format("\"{}\"", prefix));
    if (there == 0) return false;
    if (slash == std::string::npos) return true;
    const Handle on_the_way(H5Oopen(handle_.get(), prefix.c_str(), H5P_DEFAULT), &H5Oclose);
    if (on_the_way.open() && H5Iget_type(on_the_way.get()) != H5I_GROUP) return false;
  }
}

std::vector<std::string> Group::names() const {
  const Lock lock;
  std::vector<std::string> found;
  const auto add = [](hid_t, const char* name, const H5L_info_t*, void* list) -> herr_t {
    static_cast<std::vector<std::string>*>(list)->emplace_back(name);
    return 0;
  };
  if (H5Literate(handle_.get(), H5_INDEX_NAME, H5_ITER_INC, nullptr, add, &found) < 0) {
    fail_reading(state_->name, "the names in a group");
  }
  return found;
}

namespace {

Handle make_intermediate_groups() {
  Handle links(H5Pcreate(H5P_LINK_CREATE), &H5Pclose);
  H5Pset_create_intermediate_group(links.get(), 1);
  H5Pset_char_encoding(links.get(), H5T_CSET_UTF8);
  return links;
}

/// Chunked whenever something needs chunks (growth, a filter), else contiguous.
Handle creation_properties(Element element, std::int64_t size, const Layout& layout) {
  Handle create(H5Pcreate(H5P_DATASET_CREATE), &H5Pclose);
  H5Pset_attr_phase_change(create.get(), 8, 6);
  H5Pset_obj_track_times(create.get(), false);  // the same content, the same bytes
  // Every element gets written; filling first would write the file twice.
  H5Pset_fill_time(create.get(), H5D_FILL_TIME_NEVER);
  if (!layout.growable && !layout.checksum && layout.compression == 0) return create;
  // A chunk longer than a fixed dataset would only be padding (HDF5 refuses it, too).
  const std::int64_t longest = layout.growable ? layout.chunk : std::max<std::int64_t>(size, 1);
  const auto chunk = static_cast<hsize_t>(std::clamp<std::int64_t>(layout.chunk, 1, longest));
  H5Pset_chunk(create.get(), 1, &chunk);
  if (layout.compression > 0) {
    if (bytes_of(element) > 1)
      H5Pset_shuffle(create.get());  // bytes of equal weight together compress better
    H5Pset_deflate(create.get(), static_cast<unsigned>(layout.compression));
  }
  if (layout.checksum) H5Pset_fletcher32(create.get());  // last: over the bytes as they lie on disk
  return create;
}

}  // namespace

Group Group::create_group(const std::string& name) {
  const Lock lock;
  require_writable();
  const Handle links = make_intermediate_groups();
  const Handle create(H5Pcreate(H5P_GROUP_CREATE), &H5Pclose);
  H5Pset_obj_track_times(create.get(), false);
  Handle made(H5Gcreate2(handle_.get(), name.c_str(), links.get(), create.get(), H5P_DEFAULT), &H5Gclose);
  if (!made.open()) fail_writing(fmt::format("group \"{}\"", name));
  return {state_, std::move(made)};
}

Group Group::group(const std::string& name) const {
  const Lock lock;
  if (!has(name)) fail("{}: has no group \"{}\"", state_->name.string(), name);
  Handle found(H5Gopen2(handle_.get(), name.c_str(), H5P_DEFAULT), &H5Gclose);
  if (!found.open()) fail_reading(state_->name, fmt::format("group \"{}\"", name));
  return {state_, std::move(found)};
}

Dataset Group::create_dataset(const std::string& name, Element element, std::int64_t size,
                              const Layout& layout) {
  const Lock lock;
  require_writable();
  const Handle links = make_intermediate_groups();
  const Handle create = creation_properties(element, size, layout);
  const auto extent = static_cast<hsize_t>(size);
  const hsize_t longest = layout.growable ? H5S_UNLIMITED : extent;
  const Handle space(H5Screate_simple(1, &extent, &longest), &H5Sclose);
  Handle made(H5Dcreate2(handle_.get(), name.c_str(), disk_type(element), space.get(), links.get(),
                         create.get(), H5P_DEFAULT),
              &H5Dclose);
  if (!made.open()) fail_writing(fmt::format("dataset \"{}\"", name));
  return {state_, std::move(made), name};
}

Dataset Group::dataset(const std::string& name) const {
  const Lock lock;
  require_dataset(name);
  Handle found(H5Dopen2(handle_.get(), name.c_str(), H5P_DEFAULT), &H5Dclose);
  if (!found.open()) fail_reading(state_->name, fmt::format("dataset \"{}\"", name));
  return {state_, std::move(found), name};
}

// Files.

File File::create(const std::filesystem::path& file, const std::filesystem::path& shown_as) {
  const Lock lock;
  const Handle access = file_access();
  const Handle create(H5Pcreate(H5P_FILE_CREATE), &H5Pclose);
  H5Pset_obj_track_times(create.get(), false);  // of the root
  File made(std::make_shared<FileState>(FileState{shown_as.empty() ? file : shown_as, file, {}}),
            Handle(H5Fcreate(file.c_str(), H5F_ACC_TRUNC, create.get(), access.get()), &H5Fclose));
  if (!made.is_open()) made.fail_writing("the file");
  return made;
}

namespace {

Handle open_file(const std::filesystem::path& file) {
  // Plain messages for the common cases, which HDF5 hardly distinguishes.
  std::error_code error;
  const auto status = std::filesystem::status(file, error);
  if (!std::filesystem::exists(status)) fail("cannot open {}: no such file", file.string());
  if (!std::filesystem::is_regular_file(status))
    fail("cannot open {}: it is not a regular file", file.string());
  const Handle access = file_access();
  Handle opened(H5Fopen(file.c_str(), H5F_ACC_RDONLY, access.get()), &H5Fclose);
  if (!opened.open()) {
    const Reason reason = take_reason();
    if (reason.error_number != 0) fail("cannot open {}: {}", file.string(), reason.text);
    // Some other kind is named; a file that begins as HDF5 does is a damaged one.
    const std::string kind = foreign_kind_of_file(file);
    if (!kind.empty() && !kind.starts_with("an HDF5 file")) fail("{}: is {}", file.string(), kind);
    fail(
        "cannot open {} as an HDF5 file ({}); it is truncated, damaged or of another kind, so make or copy "
        "it again",
        file.string(), reason.text);
  }
  return opened;
}

}  // namespace

File File::open(const std::filesystem::path& file) {
  const Lock lock;
  return {std::make_shared<FileState>(FileState{file, {}, {}}), open_file(file)};
}

File::~File() {
  if (!handle_.open()) return;
  try {
    close();
    return;
  } catch (const Error&) {
    // Nobody asked whether the file was complete.
  }
  std::error_code ignored;
  if (!state_->written.empty()) std::filesystem::resize_file(state_->written, 0, ignored);
}

void File::close() {
  const Lock lock;
  if (!handle_.open()) return;
  require_writable();
  if (H5Fflush(handle_.get(), H5F_SCOPE_GLOBAL) < 0 || !handle_.close()) fail_writing("the end of the file");
}

void let_others_in() {
  std::this_thread::sleep_for(std::chrono::microseconds(50));
}

std::string version() {
  const Lock lock;
  unsigned major = 0;
  unsigned minor = 0;
  unsigned release = 0;
  if (H5get_libversion(&major, &minor, &release) < 0) return "unknown";
  return fmt::format("{}.{}.{}", major, minor, release);
}

}  // namespace ratplus::hdf5
