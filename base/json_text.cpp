#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/json_dump.h"
#include "base/parse_json.h"

namespace ratplus {
namespace {

/// Builds Json from the library's events, and refuses a name that comes twice in an object: the library would keep the last of its
/// values. Of ordered_json the library's own reader compares each name with all before it, so that an object of a million
/// names takes hours.
template <typename Json>
class Reader {
 public:
  explicit Reader(Json& root) : root_(root) {}

  bool null() { return put(nullptr); }
  bool boolean(bool value) { return put(value); }
  bool number_integer(std::int64_t value) { return put(value); }
  bool number_unsigned(std::uint64_t value) { return put(value); }
  bool number_float(double value, const std::string&) { return put(value); }
  bool string(std::string& value) { return put(std::move(value)); }
  bool binary(typename Json::binary_t& value) { return put(std::move(value)); }
  bool start_object(std::size_t) { return open(Json::value_t::object); }
  bool start_array(std::size_t) { return open(Json::value_t::array); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }

  bool key(std::string& name) {
    auto& [whole, names] = open_.back();
    auto& object = whole->template get_ref<typename Json::object_t&>();
    if constexpr (std::is_same_v<Json, nlohmann::ordered_json>) {
      std::vector<typename Json::object_t::value_type>& members = object;
      constexpr std::size_t few = 16;
      if (members.size() == few) {
        for (const auto& member : members) names.insert(member.first);
      }
      const auto named = [&](const auto& member) { return member.first == name; };
      if (members.size() < few ? std::ranges::any_of(members, named) : !names.insert(name).second)
        refuse(name);
      member_ = &members.emplace_back(std::move(name), Json()).second;
    } else {
      const auto [place, is_new] = object.emplace(std::move(name), nullptr);
      if (!is_new) refuse(place->first);
      member_ = &place->second;
    }
    return true;
  }

  template <typename Exception>
  bool parse_error(std::size_t, const std::string&, const Exception& error) {
    throw error;
  }

 private:
  struct Open {
    Json* whole;
    /// Of an ordered object's members, where it has many. No table of hashes, in which a client could make names collide.
    std::set<std::string> names;
  };

  [[noreturn]] static void refuse(const std::string& name) {
    throw Json::parse_error::create(
        101, std::size_t{0}, fmt::format("the name {} comes twice in an object", json_dump(Json(name))),
        nullptr);
  }

  template <typename Value>
  Json& put_at_place(Value&& value) {
    if (open_.empty()) return root_ = Json(std::forward<Value>(value));
    auto& whole = *open_.back().whole;
    if (whole.is_array()) {
      auto& list = whole.template get_ref<typename Json::array_t&>();
      list.emplace_back(std::forward<Value>(value));
      return list.back();
    }
    return *member_ = Json(std::forward<Value>(value));
  }
  template <typename Value>
  bool put(Value&& value) {
    put_at_place(std::forward<Value>(value));
    return true;
  }
  bool open(typename Json::value_t type) {
    auto& whole = put_at_place(type);
    open_.push_back({&whole, {}});
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  Json& root_;
  std::vector<Open> open_;  ///< from the outermost; none grows but the last, so that pointers stay
  Json* member_ = nullptr;  ///< of the innermost object, where the next value goes
};

}  // namespace

template <typename Json>
std::string json_dump(const Json& json, int indent) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

template std::string json_dump(const nlohmann::json&, int);
template std::string json_dump(const nlohmann::ordered_json&, int);

std::int64_t json_levels(std::string_view text) {
  std::int64_t level = 0, deepest = 0;
  bool in_text = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_text) {
      if (c == '\\') ++i;
      if (c == '"') in_text = false;
    } else if (c == '"') {
      in_text = true;
    } else if (c == '[' || c == '{') {
      deepest = std::max(deepest, ++level);
    } else if (c == ']' || c == '}') {
      --level;
    }
  }
  return deepest;
}

template <typename Json>
Json parse_json(std::string_view text) {
  if (const auto at = text.find('\0'); at != std::string_view::npos)
    throw Json::parse_error::create(101, at + 1, "a NUL byte", nullptr);
  if (const auto levels = json_levels(text); levels > most_json_levels) {
    throw Json::parse_error::create(
        101, std::size_t{0},
        fmt::format("{} levels of lists and objects; at most {}", levels, most_json_levels), nullptr);
  }
  try {
    Json json;
    Reader<Json> reader(json);
    Json::sax_parse(text, &reader);
    return json;
  } catch (const typename Json::exception& error) {
    // The library quotes a text, a number or a name whole.
    constexpr std::size_t beginning = 200, end = 60;
    std::string_view message = error.what();
    if (message.size() <= 2 * beginning) throw;
    if (const auto kind = message.find("] "); kind != std::string_view::npos) message.remove_prefix(kind + 2);
    if (constexpr std::string_view again = "parse error "; message.starts_with(again))
      message.remove_prefix(again.size());
    throw Json::parse_error::create(
        101, std::size_t{0},
        fmt::format("{} ... {}", message.substr(0, beginning), message.substr(message.size() - end)),
        nullptr);
  }
}

template nlohmann::json parse_json(std::string_view);
template nlohmann::ordered_json parse_json(std::string_view);

}  // namespace ratplus
