#include "data/tokenizer/word_cutter.h"

#include <unicode/uchar.h>
#include <unicode/unorm2.h>
#include <unicode/uset.h>
#include <unicode/ustring.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/tokenizer/text_pattern.h"

namespace ratplus::data {
namespace {

using Json = nlohmann::json;

[[noreturn]] void refuse(const std::string& file, std::string_view stage, std::string_view what) {
  fail(
      "{}: its {} has {}, which this program does not implement; use a tokenizer without it, or a "
      "SentencePiece model",
      file, stage, what);
}

std::string type_of(const Json& json, const std::string& file, const char* stage) {
  if (!json.is_object() || !json.contains("type") || !json["type"].is_string())
    refuse(file, stage, "no type");
  return json["type"].get<std::string>();
}

/// A key's value; `otherwise` where it is missing or null.
template <typename T>
T value_of(const Json& json, const char* key, T otherwise) {
  const auto found = json.find(key);
  return found == json.end() || found->is_null() ? otherwise : found->get<T>();
}

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  if (text.find(from) == std::string::npos) return;
  std::string out;
  std::size_t at = 0;
  for (std::size_t found; (found = text.find(from, at)) != std::string::npos; at = found + from.size()) {
    out.append(text, at, found - at).append(to);
  }
  out.append(text, at);
  text = std::move(out);
}

// Normalizers.

class Prepend : public Normalizer {
 public:
  explicit Prepend(std::string text) : text_(std::move(text)) {}
  void apply(std::string& text) const override {
    if (!text.empty()) text.insert(0, text_);
  }

 private:
  std::string text_;
};

class Replace : public Normalizer {
 public:
  Replace(std::string from, std::string to) : from_(std::move(from)), to_(std::move(to)) {}
  void apply(std::string& text) const override { replace_all(text, from_, to_); }

 private:
  std::string from_;
  std::string to_;
};

/// One of Unicode's normal forms, by ICU. Characters that are younger than Unicode 9 stay as they are: that is what the
/// library `tokenizers` knows of them.
class NormalForm : public Normalizer {
 public:
  using Instance = const UNormalizer2*(UErrorCode*);
  explicit NormalForm(Instance* form) {
    UErrorCode error = U_ZERO_ERROR;
    constexpr std::u16string_view known = u"[:age=9.0:]";
    characters_.reset(uset_openPattern(known.data(), static_cast<int32_t>(known.size()), &error));
    require(U_SUCCESS(error), "ICU: {}", u_errorName(error));
    uset_freeze(characters_.get());
    filtered_.reset(unorm2_openFiltered(form(&error), characters_.get(), &error));
    require(U_SUCCESS(error), "ICU: {}", u_errorName(error));
  }

  void apply(std::string& text) const override {
    if (std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; }))
      return;
    UErrorCode error = U_ZERO_ERROR;
    std::u16string wide(text.size(), u'\0');  // never more units than bytes
    int32_t units = 0;
    u_strFromUTF8(wide.data(), static_cast<int32_t>(wide.size()), &units, text.data(),
                  static_cast<int32_t>(text.size()), &error);
    wide.resize(static_cast<std::size_t>(units));
    const UNormalizer2* form = filtered_.get();
    if (unorm2_isNormalized(form, wide.data(), units, &error) != 0 && U_SUCCESS(error)) return;
    sort_long_runs(wide);
    std::u16string normal(2 * wide.size(), u'\0');
    units = unorm2_normalize(form, wide.data(), static_cast<int32_t>(wide.size()), normal.data(),
                             static_cast<int32_t>(normal.size()), &error);
    if (error == U_BUFFER_OVERFLOW_ERROR) {  // rare: one character of U+FDFA becomes 18 in NFKC
      error = U_ZERO_ERROR;
      normal.resize(static_cast<std::size_t>(units));
      units = unorm2_normalize(form, wide.data(), static_cast<int32_t>(wide.size()), normal.data(),
                               static_cast<int32_t>(normal.size()), &error);
    }
    normal.resize(static_cast<std::size_t>(units));
    text.resize(std::min<std::size_t>(3 * normal.size(), INT32_MAX));
    int32_t bytes = 0;
    u_strToUTF8(text.data(), static_cast<int32_t>(text.size()), &bytes, normal.data(), units, &error);
    require(U_SUCCESS(error), "ICU: {}", u_errorName(error));
    text.resize(static_cast<std::size_t>(bytes));
  }

 private:
  /// Puts the marks of each long run into canonical order, decomposed: ICU inserts them one by one, which takes the square
  /// of a run's length. The text stays canonically equivalent, so its normal forms are the same.
  void sort_long_runs(std::u16string& wide) const {
    constexpr std::size_t long_run = 64;  // units; shorter runs are left to ICU
    std::u16string sorted;
    std::size_t copied = 0;
    std::vector<std::pair<int, UChar32>> marks;
    UErrorCode error = U_ZERO_ERROR;
    const UNormalizer2* decomposed = unorm2_getNFDInstance(&error);
    require(U_SUCCESS(error), "ICU: {}", u_errorName(error));
    for (std::size_t at = 0; at < wide.size();) {
      const std::size_t begin = at;
      marks.clear();
      for (std::size_t next = at; at < wide.size(); at = next) {
        UChar32 c = 0;
        U16_NEXT(wide.data(), next, wide.size(), c);
        if (!is_mark(c)) break;
        std::array<char16_t, 8> parts{};
        const int32_t count = unorm2_getDecomposition(decomposed, c, parts.data(), 8, &error);
        if (count < 0) marks.emplace_back(u_getCombiningClass(c), c);
        for (int32_t i = 0; i < count;) {
          U16_NEXT(parts.data(), i, count, c);
          marks.emplace_back(u_getCombiningClass(c), c);
        }
      }
      if (at - begin > long_run) {
        std::stable_sort(marks.begin(), marks.end(),
                         [](const auto& a, const auto& b) { return a.first < b.first; });
        sorted.append(wide, copied, begin - copied);
        for (const auto& mark : marks) append_character(mark.second, sorted);
        copied = at;
      }
      if (at < wide.size() && at == begin) U16_FWD_1(wide.data(), at, wide.size());
    }
    if (copied > 0) wide = sorted.append(wide, copied);
  }

  bool is_mark(UChar32 c) const {
    return c >= 0x300 && u_getIntPropertyValue(c, UCHAR_LEAD_CANONICAL_COMBINING_CLASS) != 0 &&
           uset_contains(characters_.get(), c) != 0;
  }

  static void append_character(UChar32 c, std::u16string& text) {
    if (c > 0xFFFF) text += static_cast<char16_t>(U16_LEAD(c));
    text += static_cast<char16_t>(c > 0xFFFF ? U16_TRAIL(c) : c);
  }

  struct Close {
    void operator()(USet* set) const { uset_close(set); }
    void operator()(UNormalizer2* form) const { unorm2_close(form); }
  };
  std::unique_ptr<USet, Close> characters_;
  std::unique_ptr<UNormalizer2, Close> filtered_;
};

class NormalizerSequence : public Normalizer {
 public:
  explicit NormalizerSequence(std::vector<std::unique_ptr<Normalizer>> steps) : steps_(std::move(steps)) {}
  void apply(std::string& text) const override {
    for (const auto& step : steps_) step->apply(text);
  }

 private:
  std::vector<std::unique_ptr<Normalizer>> steps_;
};

// Cutting.

/// Around the matches of an expression: matches and what lies between them are words ("Isolated"), or the matches alone.
class Split : public WordCutter {
 public:
  Split(TextPattern pattern, bool matches_only) : pattern_(std::move(pattern)), matches_only_(matches_only) {}

  void cut(std::string_view text, bool, const Emit& emit) const override {
    std::size_t at = 0;
    for (TextPattern::Match match; pattern_.find(text, at, match); at = match.end) {
      if (match.begin > at && !matches_only_) emit(text.substr(at, match.begin - at));
      emit(text.substr(match.begin, match.end - match.begin));
    }
    if (at < text.size() && !matches_only_) emit(text.substr(at));
  }

 private:
  TextPattern pattern_;
  bool matches_only_;
};

class ByteLevel : public WordCutter {
 public:
  ByteLevel(bool adds_blank, std::unique_ptr<Split> words)
      : adds_blank_(adds_blank), words_(std::move(words)) {}

  void cut(std::string_view text, bool at_start, const Emit& emit) const override {
    if (adds_blank_ && !text.starts_with(' ')) {
      const std::string with_blank = " " + std::string(text);
      cut_words(with_blank, at_start, emit);
    } else {
      cut_words(text, at_start, emit);
    }
  }
  bool byte_level() const override { return true; }

  /// GPT-2's words.
  static constexpr const char* expression =
      R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

 private:
  void cut_words(std::string_view text, bool at_start, const Emit& emit) const {
    if (words_ != nullptr) {
      words_->cut(text, at_start, emit);
    } else {
      emit(text);
    }
  }

  bool adds_blank_;
  std::unique_ptr<Split> words_;  ///< null: the text is one word
};

/// SentencePiece's way with blanks: each becomes a visible character, which begins a word.
class Metaspace : public WordCutter {
 public:
  enum class Scheme { always, first, never };
  Metaspace(std::string blank, Scheme scheme, bool splits)
      : blank_(std::move(blank)), scheme_(scheme), splits_(splits) {}

  void cut(std::string_view given, bool at_start, const Emit& emit) const override {
    std::string text(given);
    replace_all(text, " ", blank_);
    const bool prepends = scheme_ == Scheme::always || (scheme_ == Scheme::first && at_start);
    if (prepends && !text.starts_with(blank_)) text.insert(0, blank_);
    if (!splits_) {
      emit(text);
      return;
    }
    std::size_t begin = 0;
    for (std::size_t at = text.find(blank_, 1); at != std::string::npos;
         at = text.find(blank_, at + blank_.size())) {
      emit(std::string_view(text).substr(begin, at - begin));
      begin = at;
    }
    emit(std::string_view(text).substr(begin));
  }

 private:
  std::string blank_;
  Scheme scheme_;
  bool splits_;
};

class CutterSequence : public WordCutter {
 public:
  explicit CutterSequence(std::vector<std::unique_ptr<WordCutter>> steps) : steps_(std::move(steps)) {}

  void cut(std::string_view text, bool at_start, const Emit& emit) const override {
    run(0, text, at_start, emit);
  }
  bool byte_level() const override {
    return std::any_of(steps_.begin(), steps_.end(), [](const auto& step) { return step->byte_level(); });
  }

 private:
  void run(std::size_t step, std::string_view text, bool at_start, const Emit& emit) const {
    if (step == steps_.size()) {
      emit(text);
      return;
    }
    bool first = true;
    steps_[step]->cut(text, at_start, [&](std::string_view word) {
      run(step + 1, word, at_start && first, emit);
      first = false;
    });
  }

  std::vector<std::unique_ptr<WordCutter>> steps_;
};

// Reading the file.

/// "pattern": {"String": ...} or {"Regex": ...}; a string as an expression that matches it.
std::string expression_of(const Json& json, const std::string& file, const char* stage) {
  const Json pattern = json.value("pattern", Json());
  if (pattern.is_object() && pattern.contains("Regex")) return pattern["Regex"].get<std::string>();
  if (!pattern.is_object() || !pattern.contains("String")) refuse(file, stage, "a pattern of another kind");
  std::string escaped;
  for (const char c : pattern["String"].get<std::string>()) {
    if (std::string_view("\\^$.[]|()?*+{}").find(c) != std::string_view::npos) escaped += '\\';
    escaped += c;
  }
  return escaped;
}

std::unique_ptr<Split> make_split(const Json& json, const std::string& file) {
  const auto behavior = value_of<std::string>(json, "behavior", "");
  const bool invert = value_of(json, "invert", false);
  const bool matches_only = behavior == "Removed" && invert;
  if (behavior != "Isolated" && !matches_only) {
    refuse(file, "pre_tokenizer",
           fmt::format("a Split with behavior \"{}\"{}", behavior, invert ? ", inverted" : ""));
  }
  return std::make_unique<Split>(TextPattern(expression_of(json, file, "pre_tokenizer"), file), matches_only);
}

std::unique_ptr<WordCutter> make_byte_level(const Json& json, const std::string& file) {
  std::unique_ptr<Split> words;
  if (value_of(json, "use_regex", true))
    words = std::make_unique<Split>(TextPattern(ByteLevel::expression, file), false);
  return std::make_unique<ByteLevel>(value_of(json, "add_prefix_space", true), std::move(words));
}

std::unique_ptr<WordCutter> make_metaspace(const Json& json, const std::string& file) {
  // Older files say add_prefix_space instead of prepend_scheme.
  const auto scheme = value_of<std::string>(json, "prepend_scheme",
                                            value_of(json, "add_prefix_space", true) ? "always" : "never");
  if (scheme != "always" && scheme != "first" && scheme != "never") {
    refuse(file, "pre_tokenizer", fmt::format("a Metaspace with prepend_scheme \"{}\"", scheme));
  }
  return std::make_unique<Metaspace>(value_of<std::string>(json, "replacement", "\xE2\x96\x81"),
                                     scheme == "always"  ? Metaspace::Scheme::always
                                     : scheme == "first" ? Metaspace::Scheme::first
                                                         : Metaspace::Scheme::never,
                                     value_of(json, "split", true));
}

}  // namespace

std::unique_ptr<Normalizer> make_normalizer(const Json& json, const std::string& file) {
  if (json.is_null()) return nullptr;
  const std::string type = type_of(json, file, "normalizer");
  if (type == "Sequence") {
    std::vector<std::unique_ptr<Normalizer>> steps;
    for (const Json& step : json.at("normalizers")) steps.push_back(make_normalizer(step, file));
    return std::make_unique<NormalizerSequence>(std::move(steps));
  }
  if (type == "NFC") return std::make_unique<NormalForm>(&unorm2_getNFCInstance);
  if (type == "NFD") return std::make_unique<NormalForm>(&unorm2_getNFDInstance);
  if (type == "NFKC") return std::make_unique<NormalForm>(&unorm2_getNFKCInstance);
  if (type == "NFKD") return std::make_unique<NormalForm>(&unorm2_getNFKDInstance);
  if (type == "Prepend") return std::make_unique<Prepend>(json.at("prepend").get<std::string>());
  if (type == "Replace") {
    const Json pattern = json.value("pattern", Json());
    if (!pattern.is_object() || !pattern.contains("String"))
      refuse(file, "normalizer", "a Replace of an expression");
    const auto from = pattern["String"].get<std::string>();
    if (from.empty()) refuse(file, "normalizer", "a Replace of nothing");
    return std::make_unique<Replace>(from, json.at("content").get<std::string>());
  }
  refuse(file, "normalizer", fmt::format("the type \"{}\"", type));
}

std::unique_ptr<WordCutter> make_word_cutter(const Json& json, const std::string& file) {
  if (json.is_null()) return nullptr;
  const std::string type = type_of(json, file, "pre_tokenizer");
  if (type == "Sequence") {
    std::vector<std::unique_ptr<WordCutter>> steps;
    for (const Json& step : json.at("pretokenizers")) {
      if (!steps.empty() && steps.back()->byte_level())
        refuse(file, "pre_tokenizer", "a stage after ByteLevel");
      steps.push_back(make_word_cutter(step, file));
    }
    return std::make_unique<CutterSequence>(std::move(steps));
  }
  if (type == "ByteLevel") return make_byte_level(json, file);
  if (type == "Split") return make_split(json, file);
  if (type == "Metaspace") return make_metaspace(json, file);
  if (type == "Digits") {
    const bool each = value_of(json, "individual_digits", false);
    return std::make_unique<Split>(TextPattern(each ? R"(\p{N})" : R"(\p{N}+)", file), false);
  }
  refuse(file, "pre_tokenizer", fmt::format("the type \"{}\"", type));
}

}  // namespace ratplus::data
