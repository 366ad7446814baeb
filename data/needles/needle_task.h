// NeedleTask: what is hidden in which text, and what is asked for.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ratplus::data {

/// The text around the needles: five sentences again and again, prose, or more needles.
enum class Haystack { noise, essay, needle };
/// Kinds of keys and values.
enum class NeedleKind { words, numbers, uuids };

/// A needle says the value of a key. The text holds `keys` keys of `values` needles each, in the haystack Haystack::needle
/// beside others of one value; the question is for all values of `queries` keys.
struct NeedleTask {
  std::string name;
  Haystack haystack = Haystack::essay;
  NeedleKind key_kind = NeedleKind::words;
  NeedleKind value_kind = NeedleKind::numbers;
  std::int64_t keys = 1;
  std::int64_t values = 1;
  std::int64_t queries = 1;

  bool operator==(const NeedleTask&) const = default;
};

const char* to_string(Haystack haystack);
const char* to_string(NeedleKind kind);

/// RULER's: niah_single_1 to 3, niah_multikey_1 to 3, niah_multivalue, niah_multiquery.
const std::vector<NeedleTask>& ruler_needle_tasks();

/// One of RULER's by its name, or "NAME=HAYSTACK,KEYS,VALUES,K,V,Q", such as "sixteen=essay,words,numbers,16,1,1". Throws
/// Error naming the part that is wrong.
NeedleTask parse_needle_task(std::string_view text);

}  // namespace ratplus::data
