#include "data/needles/needle_maker.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <set>
#include <utility>

#include "base/error.h"
#include "base/random.h"
#include "base/units.h"

namespace ratplus::data {
namespace {

constexpr std::string_view noise =
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.";
/// RULER's depths: 40 per cents, evenly spaced from 0 to 100 and rounded.
constexpr std::int64_t depths = 40;

std::int64_t depth(std::int64_t i) {
  return (i * 200 + (depths - 1)) / (2 * (depths - 1));
}

/// A number of a name, for the random numbers of a task and subset.
std::uint32_t stream_of(std::string_view name) {
  std::uint32_t hash = 2166136261U;  // FNV-1a
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619U;
  return hash;
}

const char* noun_of(NeedleKind kind, bool one) {
  switch (kind) {
    case NeedleKind::words:
      return one ? "word" : "words";
    case NeedleKind::numbers:
      return one ? "number" : "numbers";
    case NeedleKind::uuids:
      return one ? "uuid" : "uuids";
  }
  return "";
}

std::string joined(const std::vector<std::string>& parts, std::string_view between) {
  std::string all;
  for (const std::string& part : parts) {
    if (!all.empty()) all += between;
    all += part;
  }
  return all;
}

/// "a", "a, and b", "a, b, and c".
std::string listed(const std::vector<std::string>& keys) {
  if (keys.size() == 1) return keys.front();
  return joined({keys.begin(), keys.end() - 1}, ", ") + ", and " + keys.back();
}

/// RULER's number of lines or words by which a sample that is too long is shortened; fewer where the length is small.
constexpr std::int64_t most_words_less = 500, most_lines_less = 25;

}  // namespace

const char* to_string(NeedleWording wording) {
  return wording == NeedleWording::ruler ? "ruler" : "brief";
}

NeedleWording parse_needle_wording(std::string_view name) {
  for (const NeedleWording wording : {NeedleWording::ruler, NeedleWording::brief}) {
    if (name == to_string(wording)) return wording;
  }
  fail("--wording {}: there are {} and {}", name, to_string(NeedleWording::ruler),
       to_string(NeedleWording::brief));
}

/// The random numbers of one sample.
class NeedleMaker::Draws {
 public:
  Draws(const NeedleSettings& settings, const NeedleTask& task, std::uint64_t sample)
      : seed_(settings.seed), stream_(stream_of(settings.subset + "/" + task.name)), next_(sample << 24) {}

  std::int64_t below(std::int64_t bound) {
    return static_cast<std::int64_t>(
        random_below(static_cast<std::uint64_t>(bound), seed_, Purpose::needles, stream_, next_++));
  }

  /// `count` of the numbers below `bound`, without repetition, in random order.
  std::vector<std::int64_t> some(std::int64_t count, std::int64_t bound) {
    std::vector<std::int64_t> all(static_cast<std::size_t>(bound));
    std::iota(all.begin(), all.end(), 0);
    for (std::int64_t i = 0; i < count; ++i)
      std::swap(all[static_cast<std::size_t>(i)], all[static_cast<std::size_t>(i + below(bound - i))]);
    all.resize(static_cast<std::size_t>(count));
    return all;
  }

 private:
  std::uint64_t seed_;
  std::uint32_t stream_;
  std::uint64_t next_;
};

NeedleMaker::NeedleMaker(const NeedleTask& task, const NeedleSettings& settings, const Tokenizer& tokenizer,
                         const Prose& prose, const KeyWords& words)
    : task_(task), settings_(settings), tokenizer_(tokenizer), prose_(prose), words_(words) {
  check();
  find_haystack();
}

void NeedleMaker::check() const {
  if (task_.haystack == Haystack::essay && prose_.words() == 0)
    fail("task {} hides needles in prose, and there is none; name files of prose (.txt, .jsonl, .parquet)",
         task_.name);
  const bool words = task_.key_kind == NeedleKind::words || task_.value_kind == NeedleKind::words;
  if (words && words_.second.empty()) {
    const char* reason =
        prose_.words() > 0
            ? "the prose has too few different words beside the most frequent ones; name more prose"
            : "there are none; name files of prose";
    fail("task {} takes words for keys, and {}, or give --adjectives and --nouns", task_.name, reason);
  }
  if (task_.haystack == Haystack::essay && task_.keys * task_.values > depths) {
    fail("task {} hides {} needles in prose, which has {} places for them; give fewer keys or values",
         task_.name, task_.keys * task_.values, depths);
  }
}

std::int64_t NeedleMaker::tokens(std::string_view text) const {
  std::vector<std::int32_t> out;
  tokenizer_.encode(text, out);
  return std::ssize(out);
}

std::int64_t NeedleMaker::least_haystack() const {
  return task_.haystack == Haystack::essay ? 1 : task_.keys * task_.values;
}

std::int64_t NeedleMaker::step() const {
  const std::int64_t most = task_.haystack == Haystack::essay ? most_words_less : most_lines_less;
  return std::clamp<std::int64_t>(haystack_ / 40, 1, most);
}

/// Finds by bisection, as RULER does, the largest haystack whose sample fits.
void NeedleMaker::find_haystack() {
  const auto fits = [&](std::int64_t n) {
    Draws draws(settings_, task_, (std::uint64_t{1} << 39) + static_cast<std::uint64_t>(n));
    return draw(draws, n).length <= settings_.length;
  };
  std::int64_t low = least_haystack();
  if (!fits(low)) {
    Draws draws(settings_, task_, std::uint64_t{1} << 38);
    fail(
        "--sequence-length {} has no room for a sample of {}, which takes about {} without text around; give "
        "a larger one, or "
        "fewer --answer-tokens",
        settings_.length, task_.name, counted(draw(draws, low).length, "token"));
  }
  std::int64_t high = low;
  while (fits(high)) high *= 2;
  while (high - low > 1) {
    const std::int64_t middle = low + (high - low) / 2;
    (fits(middle) ? low : high) = middle;
  }
  haystack_ = low;
  // Passages of prose take more or fewer tokens: the few that are too long are drawn again (make).
  if (task_.haystack == Haystack::essay && !settings_.same_prose) haystack_ += haystack_ / 8;
}

NeedleSample NeedleMaker::make(std::int64_t number) const {
  Draws draws(settings_, task_, static_cast<std::uint64_t>(number));
  std::int64_t haystack = haystack_;
  for (int attempt = 0;; ++attempt) {
    NeedleSample sample = draw(draws, haystack);
    if (sample.length <= settings_.length) return sample;
    if (attempt > 1000)
      fail("--sequence-length {}: no sample of {} fits; give a larger one", settings_.length, task_.name);
    haystack = std::max(haystack - step(), least_haystack());
  }
}

std::string NeedleMaker::value(Draws& draws, NeedleKind kind) const {
  switch (kind) {
    case NeedleKind::words: {
      const auto any = [&](const std::vector<std::string>& list) {
        return list[static_cast<std::size_t>(draws.below(std::ssize(list)))];
      };
      if (words_.first.empty()) return any(words_.second);
      auto first = any(words_.first);
      return first + "-" + any(words_.second);
    }
    case NeedleKind::numbers: {
      std::int64_t lowest = 1;
      for (std::int64_t i = 1; i < settings_.digits; ++i) lowest *= 10;
      return fmt::format("{}", lowest + draws.below(9 * lowest));
    }
    case NeedleKind::uuids: {
      std::array<std::uint32_t, 4> bits{};
      for (auto& part : bits) part = static_cast<std::uint32_t>(draws.below(std::int64_t{1} << 32));
      bits[1] = (bits[1] & 0xffff0fffU) | 0x4000U;      // version 4
      bits[2] = (bits[2] & 0x3fffffffU) | 0x80000000U;  // the variant of RFC 9562
      return fmt::format("{:08x}-{:04x}-{:04x}-{:04x}-{:04x}{:08x}", bits[0], bits[1] >> 16,
                         bits[1] & 0xffffU, bits[2] >> 16, bits[2] & 0xffffU, bits[3]);
    }
  }
  return "";
}

std::string NeedleMaker::needle(const std::string& key, const std::string& value) const {
  if (settings_.wording == NeedleWording::brief)
    return fmt::format("The {} of {} is {}.", noun_of(task_.value_kind, true), key, value);
  return fmt::format("One of the special magic {} for {} is: {}.", noun_of(task_.value_kind, false), key,
                     value);
}

NeedleQuestion NeedleMaker::question(const std::vector<std::string>& keys,
                                     std::vector<std::string> outputs) const {
  const bool one = outputs.size() == 1;
  const char* noun = noun_of(task_.value_kind, one);
  NeedleQuestion question;
  if (settings_.wording == NeedleWording::brief) {
    question.text = fmt::format("\nThe {} of {} {}", noun, listed(keys), one ? "is" : "are");
    question.completion = " " + joined(outputs, ", ");
  } else {
    question.text = fmt::format("\nWhat {} the special magic {} for {} mentioned in the provided text?",
                                one ? "is" : "are all", noun, listed(keys));
    question.completion = joined(outputs, ",");
  }
  question.outputs = std::move(outputs);
  return question;
}

NeedleSample NeedleMaker::draw(Draws& draws, std::int64_t haystack) const {
  struct Needle {
    std::string text;
    std::size_t value_at;  ///< byte of the text
  };
  // Keys are distinct, those of the text around included.
  std::set<std::string> taken;
  const auto new_key = [&] {
    for (int attempt = 0; attempt < 10000; ++attempt) {
      std::string key = value(draws, task_.key_kind);
      if (taken.insert(key).second) return key;
    }
    fail(
        "task {}: a sample takes more than {} different keys, which there are not; give more words or "
        "--digits",
        task_.name, taken.size());
  };
  std::vector<std::string> keys;
  std::vector<std::vector<std::string>> values;
  std::vector<std::vector<Needle>> needles;  // by key
  const auto add_key = [&](std::int64_t count) {
    keys.push_back(new_key());
    values.emplace_back();
    needles.emplace_back();
    for (std::int64_t v = 0; v < count; ++v) {
      values.back().push_back(value(draws, task_.value_kind));
      std::string text = needle(keys.back(), values.back().back());
      const std::size_t at = text.size() - 1 - values.back().back().size();
      needles.back().push_back({std::move(text), at});
    }
  };
  for (std::int64_t k = 0; k < task_.keys; ++k) add_key(task_.values);
  const std::int64_t hidden = task_.keys * task_.values;

  // Pieces of the text; needles have a key and a value.
  struct Piece {
    std::string text;
    std::int64_t key = -1, value = -1;
  };
  std::vector<Piece> pieces;
  const auto order = draws.some(hidden, hidden);
  const auto put = [&](std::int64_t i) {
    const std::int64_t k = order[static_cast<std::size_t>(i)] / task_.values,
                       v = order[static_cast<std::size_t>(i)] % task_.values;
    pieces.push_back({needles[static_cast<std::size_t>(k)][static_cast<std::size_t>(v)].text, k, v});
  };
  std::vector<std::int64_t> places;  // before which piece of the text around
  if (task_.haystack == Haystack::essay) {
    const auto sentences = prose_.sentences(settings_.same_prose ? 0 : draws.below(prose_.words()), haystack);
    for (const std::int64_t i : draws.some(hidden, depths))
      places.push_back(std::ssize(sentences) * depth(i) / 100);
    std::ranges::sort(places);
    std::int64_t next = 0;
    for (std::int64_t i = 0; i <= std::ssize(sentences); ++i) {
      for (; next < hidden && places[static_cast<std::size_t>(next)] == i; ++next) put(next);
      if (i < std::ssize(sentences)) pieces.push_back({sentences[static_cast<std::size_t>(i)]});
    }
  } else {
    places = draws.some(hidden, haystack);
    std::ranges::sort(places);
    std::int64_t next = 0;
    for (std::int64_t i = 0; i < haystack; ++i) {
      if (next < hidden && places[static_cast<std::size_t>(next)] == i) put(next++);
      if (task_.haystack == Haystack::noise) {
        pieces.push_back({std::string(noise)});
      } else {
        add_key(1);
        pieces.push_back({needles.back().front().text, std::ssize(keys) - 1, 0});
      }
    }
  }

  // The first question is for hidden needles; further ones may be for any.
  const auto asked = draws.some(task_.queries, task_.keys);
  std::vector<std::vector<std::int64_t>> rounds{asked};
  if (settings_.questions > 1) {
    std::vector<std::int64_t> others;
    for (const std::int64_t k : draws.some(std::ssize(keys), std::ssize(keys))) {
      if (std::ranges::find(asked, k) == asked.end() &&
          values[static_cast<std::size_t>(k)].size() == values.front().size())
        others.push_back(k);
    }
    for (std::int64_t at = 0;
         std::ssize(rounds) < settings_.questions && at + task_.queries <= std::ssize(others);
         at += task_.queries)
      rounds.emplace_back(others.begin() + at, others.begin() + at + task_.queries);
  }

  NeedleSample sample;
  sample.keys = std::ssize(keys);
  for (const auto& round : rounds) {
    std::vector<std::string> names, outputs;
    for (const std::int64_t k : round) {
      names.push_back(keys[static_cast<std::size_t>(k)]);
      const auto& of_key = values[static_cast<std::size_t>(k)];
      outputs.insert(outputs.end(), of_key.begin(), of_key.end());
    }
    sample.questions.push_back(question(names, std::move(outputs)));
  }
  const auto& first = sample.questions.front();
  const bool one = first.outputs.size() == 1;
  if (settings_.wording == NeedleWording::ruler) {
    const char* noun = noun_of(task_.value_kind, one);
    sample.input = fmt::format(
        "{} special magic {} {} hidden within the following text. Make sure to memorize it. I will quiz "
        "you about the {} afterwards.\n",
        one ? "A" : "Some", noun, one ? "is" : "are", noun);
    std::vector<std::string> names;
    for (const std::int64_t k : asked) names.push_back(keys[static_cast<std::size_t>(k)]);
    sample.answer_prefix = fmt::format(" The special magic {} for {} mentioned in the provided text {}", noun,
                                       listed(names), one ? "is" : "are");
  }
  const std::string_view between = task_.haystack == Haystack::essay ? " " : "\n";
  for (const Piece& piece : pieces) {
    if (&piece != &pieces.front()) sample.input += between;
    if (piece.key == asked.front() && piece.value == 0)
      sample.answer_at =
          sample.input.size() +
          needles[static_cast<std::size_t>(piece.key)][static_cast<std::size_t>(piece.value)].value_at;
    sample.input += piece.text;
  }
  sample.input += first.text;
  sample.length = tokens(sample.input + sample.answer_prefix) + settings_.answer_tokens;
  for (std::size_t i = 1; i < sample.questions.size(); ++i)  // and an end-of-text token each
    sample.length += tokens(sample.questions[i].text) + tokens(sample.questions[i].completion) + 1;
  return sample;
}

}  // namespace ratplus::data
