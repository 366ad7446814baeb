#include "data/tokenizer/train_tokenizer.h"

#include <sentencepiece_trainer.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <exception>
#include <optional>
#include <string_view>
#include <unordered_map>

#include "base/error.h"
#include "data/tokenizer/sentencepiece_words.h"

namespace ratplus::data {
namespace {

/// SentencePiece leaves out longer lines; long ones are cut between words before it sees them.
constexpr std::size_t max_line_bytes = 4096;

/// Bytes of the first line of `text` that training sees: up to a newline, or a cut between words.
std::size_t line_bytes(std::string_view text) {
  const std::size_t newline = std::min(text.find('\n'), text.size());
  if (newline <= max_line_bytes) return newline;
  const std::size_t blank = text.rfind(' ', max_line_bytes);
  if (blank != std::string_view::npos && blank > 0) return blank;
  std::size_t cut = max_line_bytes;  // no blank at all: between two characters
  while (cut > 1 && (static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80) --cut;
  return cut;
}

/// Hands the documents to SentencePiece line by line.
class LineIterator : public sentencepiece::SentenceIterator {
 public:
  LineIterator(double share, const std::function<bool(std::string&)>& next_document)
      : share_(share), next_document_(next_document) {
    LineIterator::Next();
  }

  bool done() const override { return done_; }
  const std::string& value() const override { return line_; }
  sentencepiece::util::Status status() const override {
    if (!error_) return {};
    return {sentencepiece::util::StatusCode::kAborted, "reading the text failed"};
  }

  void Next() override {
    try {
      do {
        if (!advance()) {
          done_ = true;
          return;
        }
      } while (!chosen() || line_.empty());
    } catch (...) {  // kept, since it must not pass through SentencePiece
      error_ = std::current_exception();
      done_ = true;
    }
  }

  std::exception_ptr error() const { return error_; }
  std::int64_t lines_used() const { return used_; }

 private:
  /// Moves to the next line, of the next document if need be; false at the end.
  bool advance() {
    while (at_ >= document_.size()) {
      if (!next_document_(document_)) return false;
      at_ = 0;
    }
    const std::string_view rest = std::string_view(document_).substr(at_);
    const std::size_t bytes = line_bytes(rest);
    line_.assign(rest.substr(0, bytes));
    if (line_.ends_with('\r')) line_.pop_back();
    const bool separator = bytes < rest.size() && (rest[bytes] == '\n' || rest[bytes] == ' ');
    at_ += bytes + (separator ? 1 : 0);
    ++line_number_;
    return true;
  }

  /// Every (1 / share)-th line: those at which floor(n share) steps up.
  bool chosen() {
    const auto n = static_cast<double>(line_number_);
    const bool use = std::floor(n * share_) > std::floor((n - 1) * share_);
    used_ += use;
    return use;
  }

  const double share_;
  const std::function<bool(std::string&)>& next_document_;
  std::string document_;
  std::size_t at_ = 0;  ///< first byte of the document that no line has held yet
  std::string line_;
  std::int64_t line_number_ = 0;
  std::int64_t used_ = 0;
  bool done_ = false;
  std::exception_ptr error_;
};

/// The size that SentencePiece is asked for. Beyond these bounds it fails before it has seen the text; at
/// them it tells which sizes the text allows.
std::int64_t trained_size(std::int64_t vocab_size) {
  return std::clamp<std::int64_t>(vocab_size, 3 + 256, 1 << 24);
}

std::unordered_map<std::string, std::string> trainer_settings(std::int64_t vocab_size) {
  return {
      {"model_type", "bpe"},
      {"vocab_size", fmt::format("{}", trained_size(vocab_size))},
      {"byte_fallback", "true"},
      {"character_coverage", "0.99995"},  // rarer characters are spelt in bytes
      {"normalization_rule_name", "identity"},
      {"remove_extra_whitespaces", "false"},
      {"add_dummy_prefix", "true"},
      {"split_digits", "true"},
      {"allow_whitespace_only_pieces", "true"},
      {"unk_id", "0"},
      {"bos_id", "1"},
      {"eos_id", "2"},
      {"pad_id", "-1"},
      {"max_sentence_length", fmt::format("{}", max_line_bytes + 1)},
      {"shuffle_input_sentence", "false"},
      {"num_threads", "8"},  // a constant: the model file records it
      {"minloglevel", "4"},  // above fatal: nothing is logged, what fails is in the status
  };
}

/// The number after `words` in SentencePiece's message, if it has them.
std::optional<std::int64_t> number_after(std::string_view message, std::string_view words) {
  const auto at = message.find(words);
  if (at == std::string_view::npos) return std::nullopt;
  std::int64_t number = 0;
  const auto digits = message.substr(at + words.size());
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  return error == std::errc{} ? std::optional(number) : std::nullopt;
}

/// Says in our words what SentencePiece found impossible; its own name options that ratplus does not have.
[[noreturn]] void fail_training(std::int64_t vocab_size, std::string_view message) {
  if (const auto least = number_after(message, fmt::format(" {} vs ", trained_size(vocab_size)))) {
    fail(
        "a tokenizer with a vocabulary of {} cannot be trained on this text: its characters, the 256 bytes "
        "and the 3 special pieces are {} already; set --vocab-size to at least that",
        vocab_size, *least);
  }
  if (const auto most = number_after(message, " value <= ")) {
    fail(
        "a tokenizer with a vocabulary of {} cannot be trained on this text, which gives at most {}; lower "
        "--vocab-size or give more text",
        vocab_size, *most);
  }
  fail(
      "a tokenizer with a vocabulary of {} cannot be trained on this text ({}); change --vocab-size or give "
      "more text",
      vocab_size, plain_words(message));
}

}  // namespace

std::string train_tokenizer(const TokenizerTraining& training,
                            const std::function<bool(std::string&)>& next_document) {
  LineIterator lines(training.line_share, next_document);
  if (lines.error()) std::rethrow_exception(lines.error());
  if (lines.done()) fail("there is no text to train a tokenizer on");
  std::string model;
  const auto status =
      sentencepiece::SentencePieceTrainer::Train(trainer_settings(training.vocab_size), &lines, &model);
  if (lines.error()) std::rethrow_exception(lines.error());
  if (!status.ok()) fail_training(training.vocab_size, status.message());
  return model;
}

}  // namespace ratplus::data
