#include "lib/weights/safetensors_header.h"
#include "base/json_dump.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/parse_json.h"
#include "lib/weights/element_type.h"
#include "lib/weights/unpickler.h"

namespace ratplus::weights {
namespace {

using HeaderJson = nlohmann::json;  // its objects find a key fast, however many a damaged header has

[[noreturn]] void damaged(const std::string& name, std::string_view what) {
  fail("{}: its header is damaged or none of safetensors ({}); copy the file again", name, what);
}

std::int64_t whole_number(const HeaderJson& value, const std::string& name) {
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() >> 63 != 0)
    damaged(name, "a size or place is no whole number");
  return value.get<std::int64_t>();
}

SafetensorsEntry parse_entry(const std::string& key, const HeaderJson& json, const std::string& name) {
  SafetensorsEntry entry;
  entry.tensor.name = key;
  const auto type_name = json.at("dtype").get<std::string>();
  const ElementType* known = find_element_type(&ElementType::safetensors, type_name);
  if (known == nullptr) {
    fail(
        "{}: {} has the unknown type \"{}\"; weights may be F32, F16 or BF16: save them again in one of "
        "these",
        name, printable(key), printable(type_name));
  }
  entry.tensor.type = known->type;
  entry.tensor.type_name = known->name;
  for (const auto& size : json.at("shape")) entry.tensor.shape.push_back(whole_number(size, name));
  const auto& offsets = json.at("data_offsets");
  if (!offsets.is_array() || offsets.size() != 2) damaged(name, "a tensor without its two offsets");
  entry.begin = whole_number(offsets[0], name);
  entry.end = whole_number(offsets[1], name);
  const auto bytes = known->bytes_of(entry.tensor.numel());
  if (bytes < 0 || entry.end < entry.begin || entry.end - entry.begin != bytes) {
    damaged(name, fmt::format("{} does not fit its bytes", printable(key)));
  }
  return entry;
}

/// The tensors follow each other, from the first byte to the last.
void check_cover(const SafetensorsHeader& header, std::int64_t data_bytes, const std::string& name) {
  std::int64_t next = 0;
  for (const auto& entry : header.entries) {
    if (entry.begin != next) {
      damaged(name, fmt::format("{} begins at byte {} instead of {}", printable(entry.tensor.name),
                                entry.begin, next));
    }
    next = entry.end;
  }
  if (next == data_bytes) return;
  fail("{}: has {} bytes of tensors where its header lists {}; it is cut short or damaged", name, data_bytes,
       next);
}

}  // namespace

SafetensorsHeader parse_safetensors_header(std::string_view json, std::int64_t data_bytes,
                                           const std::string& name) {
  SafetensorsHeader header;
  try {
    const HeaderJson parsed = parse_json<HeaderJson>(json);
    if (!parsed.is_object()) damaged(name, "no object");
    for (const auto& [key, value] : parsed.items()) {
      if (key == "__metadata__") {
        value.get_to(header.metadata);
      } else {
        header.entries.push_back(parse_entry(key, value, name));
      }
    }
  } catch (const HeaderJson::exception& error) {
    damaged(name, printable(error.what()));
  }
  std::stable_sort(header.entries.begin(), header.entries.end(), [](const auto& a, const auto& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  check_cover(header, data_bytes, name);
  return header;
}

std::string write_safetensors_header(const SafetensorsHeader& header) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  if (!header.metadata.empty()) json["__metadata__"] = header.metadata;
  for (const auto& entry : header.entries) {
    json[entry.tensor.name] = {{"dtype", element_type_of(*entry.tensor.type).safetensors},
                               {"shape", entry.tensor.shape},
                               {"data_offsets", {entry.begin, entry.end}}};
  }
  std::string text = json_dump(json);
  text.append((8 - text.size() % 8) % 8, ' ');
  std::string bytes;
  for (int shift = 0; shift < 64; shift += 8) bytes += static_cast<char>(text.size() >> shift & 0xff);
  return bytes + text;
}

}  // namespace ratplus::weights
