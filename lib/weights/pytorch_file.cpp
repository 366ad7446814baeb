#include "lib/weights/pytorch_file.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "base/error.h"
#include "lib/weights/element_type.h"

namespace ratplus::weights {
namespace {

using Kind = Pickled::Kind;
using Object = Pickled::Object;

constexpr std::string_view pickle_name = "data.pkl";
constexpr std::int64_t largest_pickle = std::int64_t{256} << 20;
constexpr std::int64_t read_bytes = std::int64_t{4} << 20;
constexpr std::size_t most_dimensions = 16;

/// "archive/" of "archive/data.pkl".
std::string find_folder(const ZipReader& zip) {
  const ZipEntry* found = nullptr;
  for (const auto& entry : zip.entries()) {
    std::string_view name = entry.name;
    if (!name.ends_with(pickle_name)) continue;
    name.remove_suffix(pickle_name.size());
    if (std::count(name.begin(), name.end(), '/') != (name.empty() ? 0 : 1) ||
        (!name.empty() && name.back() != '/'))
      continue;
    if (found != nullptr) fail("{}: holds two files of PyTorch's, and should be one", zip.path().string());
    found = &entry;
  }
  if (found == nullptr) {
    fail("{}: a zip archive, but not one of torch.save (no {} in it)", zip.path().string(), pickle_name);
  }
  return found->name.substr(0, found->name.size() - pickle_name.size());
}

std::vector<std::int64_t> numbers_of(const Pickled& pickle, const Object& tuple) {
  std::vector<std::int64_t> numbers;
  for (const auto ref : tuple.items) {
    const Object& each = pickle[ref];
    numbers.push_back(each.kind == Kind::integer ? each.number : -1);
  }
  return numbers;
}

/// Whether these strides are those of rows one after another.
bool is_contiguous(const std::vector<std::int64_t>& shape, const std::vector<std::int64_t>& strides) {
  std::int64_t expected = 1;
  for (std::size_t i = shape.size(); i-- > 0;) {
    if (shape[i] != 1 && strides[i] != expected) return false;
    expected *= shape[i];
  }
  return true;
}

/// The element past the last that the tensor has in its storage, or -1 if 64 bits cannot count it.
std::int64_t end_of(std::int64_t offset, const std::vector<std::int64_t>& shape,
                    const std::vector<std::int64_t>& strides) {
  std::int64_t last = offset;
  for (std::size_t i = 0; i < shape.size(); ++i) {
    std::int64_t step = 0;
    if (shape[i] < 1 || strides[i] < 0 || __builtin_mul_overflow(shape[i] - 1, strides[i], &step) ||
        __builtin_add_overflow(last, step, &last)) {
      return -1;
    }
  }
  return last + 1;
}

std::string keys_of(const Pickled& pickle, const Object& dictionary) {
  std::vector<std::string> keys;
  for (std::size_t i = 0; i < dictionary.items.size() && keys.size() < 10; i += 2)
    keys.push_back(printable(pickle[dictionary.items[i]].text));
  return fmt::format("{}", fmt::join(keys, ", "));
}

}  // namespace

PyTorchFile::PyTorchFile(const std::filesystem::path& file) : zip_(file) {
  const std::string folder = find_folder(zip_);
  check_byte_order(folder);
  const std::string text = zip_.read_all(*zip_.find(folder + std::string(pickle_name)), largest_pickle);
  const Pickled pickle = unpickle(text, path().string() + ": " + std::string(pickle_name));
  read_state_dict(pickle, folder);
  if (const auto* written = pickle.find(pickle.root(), description_key);
      written != nullptr && written->kind == Kind::text) {
    description_ = written->text;
  }
}

void PyTorchFile::check_byte_order(const std::string& folder) {
  const ZipEntry* order = zip_.find(folder + "byteorder");
  if (order == nullptr || zip_.read_all(*order, 64) == "little") return;
  fail("{}: was written by a big-endian machine; load it in PyTorch and save it again", path().string());
}

void PyTorchFile::read_state_dict(const Pickled& pickle, const std::string& folder) {
  const Object& root = pickle.root();
  if (root.kind != Kind::dictionary) {
    fail("{}: holds no dictionary; save the model's state dict (torch.save(model.state_dict(), FILE))",
         path().string());
  }
  const Object* task = pickle.find(root, "task");
  const Object& state = task != nullptr ? *task : root;
  std::unordered_set<std::string> names;
  for (std::size_t i = 0; i + 1 < state.items.size(); i += 2) {
    const Object& key = pickle[state.items[i]];
    const Object& value = pickle[state.items[i + 1]];
    if (key.kind != Kind::text || value.kind != Kind::tensor) {
      fail("{}: neither a dictionary with \"task\" nor a state dict itself: \"{}\" is no tensor (keys: {})",
           path().string(), printable(key.text), keys_of(pickle, root));
    }
    std::string name = without_wrappers(key.text);
    if (!names.insert(name).second) fail("{}: holds {} twice", path().string(), printable(name));
    add_tensor(std::move(name), pickle, value, folder);
  }
}

void PyTorchFile::add_tensor(std::string name, const Pickled& pickle, const Object& tensor,
                             const std::string& folder) {
  const Object& storage = pickle[tensor.items[0]];
  const std::string_view storage_class = pickle[storage.items[0]].text;
  const ElementType* known = find_element_type(&ElementType::pytorch, storage_class);
  StoredTensor stored{.name = std::move(name),
                      .shape = numbers_of(pickle, pickle[tensor.items[1]]),
                      .type_name = known != nullptr ? known->name : printable(storage_class),
                      .type = known != nullptr ? known->type : std::nullopt};
  Place place{.record = zip_.find(folder + "data/" + std::string(storage.text)),
              .offset = tensor.number,
              .strides = numbers_of(pickle, pickle[tensor.items[2]])};
  if (stored.type) {  // others are not read, and may be odd
    const auto where = path().string() + ": " + printable(stored.name);
    if (place.record == nullptr) {
      fail("{}: its record data/{} is missing; copy the file again", where, printable(storage.text));
    }
    const auto count = place.record->size * 8 / known->bits;
    const bool shaped = stored.shape.size() == place.strides.size() &&
                        stored.shape.size() <= most_dimensions && stored.numel() >= 0;
    const auto end = shaped ? end_of(place.offset, stored.shape, place.strides) : -1;
    if (storage.number != count || place.offset < 0 || end < 0 || end > count) {
      fail("{}: its shape [{}] does not fit its record of {} bytes; the file is damaged", where,
           fmt::join(stored.shape, ", "), place.record->size);
    }
    place.contiguous = is_contiguous(stored.shape, place.strides);
  }
  tensors_.push_back(std::move(stored));
  places_.push_back(std::move(place));
}

bool PyTorchFile::same_memory(std::size_t a, std::size_t b) const {
  return places_[a].record == places_[b].record && places_[a].offset == places_[b].offset &&
         places_[a].strides == places_[b].strides && tensors_[a].shape == tensors_[b].shape &&
         tensors_[a].type == tensors_[b].type;
}

/// Elements from `first` of the record on, one after another.
void PyTorchFile::read_run(const Place& place, StoredType type, std::int64_t first, std::span<float> out) {
  const auto bytes = bytes_of(type);
  while (!out.empty()) {
    const auto count = std::min<std::int64_t>(static_cast<std::int64_t>(out.size()), read_bytes / bytes);
    raw_.resize(static_cast<std::size_t>(count * bytes));
    zip_.read(*place.record, first * bytes, raw_);
    decode(type, raw_.data(), out.first(static_cast<std::size_t>(count)));
    out = out.subspan(static_cast<std::size_t>(count));
    first += count;
  }
}

void PyTorchFile::read(std::size_t tensor, std::int64_t begin, std::span<float> out) {
  const auto& place = places_[tensor];
  if (place.contiguous) return read_run(place, *tensors_[tensor].type, place.offset + begin, out);
  gather(tensor, begin, out);
}

/// All bytes between a strided tensor's first and last element: at most its record, which the file has.
const std::vector<char>& PyTorchFile::extent_of(std::size_t tensor) {
  if (extent_tensor_ == tensor) return extent_;
  extent_tensor_ = static_cast<std::size_t>(-1);
  const auto& place = places_[tensor];
  const auto bytes = bytes_of(*tensors_[tensor].type);
  const auto size = (end_of(0, tensors_[tensor].shape, place.strides)) * bytes;
  extent_.clear();
  for (std::int64_t done = 0; done < size;) {
    const auto step = std::min(size - done, read_bytes);
    extent_.resize(static_cast<std::size_t>(done + step));
    zip_.read(*place.record, place.offset * bytes + done,
              std::span(extent_).subspan(static_cast<std::size_t>(done)));
    done += step;
  }
  extent_tensor_ = tensor;
  return extent_;
}

void PyTorchFile::gather(std::size_t tensor, std::int64_t begin, std::span<float> out) {
  const auto& shape = tensors_[tensor].shape;
  const auto& strides = places_[tensor].strides;
  const auto type = *tensors_[tensor].type;
  const auto& extent = extent_of(tensor);
  std::vector<std::int64_t> index(shape.size());
  for (std::size_t d = shape.size(); d-- > 0; begin /= shape[d]) index[d] = begin % shape[d];
  for (float& element : out) {
    std::int64_t at = 0;
    for (std::size_t d = 0; d < shape.size(); ++d) at += index[d] * strides[d];
    decode(type, extent.data() + at * bytes_of(type), std::span(&element, 1));
    for (std::size_t d = shape.size(); d-- > 0 && ++index[d] == shape[d];) index[d] = 0;
  }
}

}  // namespace ratplus::weights
