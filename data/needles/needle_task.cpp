#include "data/needles/needle_task.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "base/error.h"

namespace ratplus::data {
namespace {

constexpr std::array haystacks = {Haystack::noise, Haystack::essay, Haystack::needle};
constexpr std::array kinds = {NeedleKind::words, NeedleKind::numbers, NeedleKind::uuids};

std::vector<std::string_view> parts_of(std::string_view text) {
  std::vector<std::string_view> parts;
  for (;;) {
    const auto comma = text.find(',');
    parts.push_back(text.substr(0, comma));
    if (comma == std::string_view::npos) return parts;
    text.remove_prefix(comma + 1);
  }
}

template <typename Name, std::size_t n>
Name named(std::string_view name, const std::array<Name, n>& all, std::string_view task, const char* noun) {
  for (const Name one : all) {
    if (name == to_string(one)) return one;
  }
  std::string names;
  for (const Name one : all)
    names += fmt::format("{}{}", one == all.front() ? "" : one == all.back() ? " or " : ", ", to_string(one));
  fail("task {}: there are no {} \"{}\"; give {}", task, noun, name, names);
}

std::int64_t count_of(std::string_view text, std::string_view task, const char* noun) {
  std::int64_t count = 0;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), count);
  if (read.ec != std::errc{} || read.ptr != text.data() + text.size() || count < 1 || count > 1000)
    fail("task {}: \"{}\" {} are no number from 1 to 1000", task, text, noun);
  return count;
}

}  // namespace

const char* to_string(Haystack haystack) {
  switch (haystack) {
    case Haystack::noise:
      return "noise";
    case Haystack::essay:
      return "essay";
    case Haystack::needle:
      return "needle";
  }
  return "";
}

const char* to_string(NeedleKind kind) {
  switch (kind) {
    case NeedleKind::words:
      return "words";
    case NeedleKind::numbers:
      return "numbers";
    case NeedleKind::uuids:
      return "uuids";
  }
  return "";
}

const std::vector<NeedleTask>& ruler_needle_tasks() {
  using enum Haystack;
  using enum NeedleKind;
  // RULER's scripts/synthetic.yaml; its multiquery has as many keys as it asks for.
  static const std::vector<NeedleTask> tasks = {{"niah_single_1", noise, words, numbers, 1, 1, 1},
                                                {"niah_single_2", essay, words, numbers, 1, 1, 1},
                                                {"niah_single_3", essay, words, uuids, 1, 1, 1},
                                                {"niah_multikey_1", essay, words, numbers, 4, 1, 1},
                                                {"niah_multikey_2", needle, words, numbers, 1, 1, 1},
                                                {"niah_multikey_3", needle, uuids, uuids, 1, 1, 1},
                                                {"niah_multivalue", essay, words, numbers, 1, 4, 1},
                                                {"niah_multiquery", essay, words, numbers, 4, 1, 4}};
  return tasks;
}

NeedleTask parse_needle_task(std::string_view text) {
  const auto& known = ruler_needle_tasks();
  const auto equals = text.find('=');
  if (equals == std::string_view::npos) {
    const auto found = std::ranges::find(known, text, &NeedleTask::name);
    if (found != known.end()) return *found;
    std::string names;
    for (const NeedleTask& task : known) names += task.name + ", ";
    fail("there is no task \"{}\"; give {}or one of your own as NAME=HAYSTACK,KEYS,VALUES,K,V,Q", text,
         names);
  }
  NeedleTask task;
  task.name = text.substr(0, equals);
  if (task.name.empty() || task.name.find_first_of("/ \t") != std::string::npos || task.name.front() == '.')
    fail("task \"{}\": the name is one word, also a directory's", text);
  const auto parts = parts_of(text.substr(equals + 1));
  if (parts.size() != 6)
    fail("task {}: has {} parts; give HAYSTACK,KEYS,VALUES,K,V,Q, such as essay,words,numbers,4,1,1",
         task.name, parts.size());
  task.haystack = named(parts[0], haystacks, task.name, "haystacks");
  task.key_kind = named(parts[1], kinds, task.name, "keys");
  task.value_kind = named(parts[2], kinds, task.name, "values");
  task.keys = count_of(parts[3], task.name, "keys");
  task.values = count_of(parts[4], task.name, "values");
  task.queries = count_of(parts[5], task.name, "queries");
  if (task.queries > task.keys)
    fail("task {}: asks for {} of {} keys; give at least as many keys", task.name, task.queries, task.keys);
  return task;
}

}  // namespace ratplus::data
