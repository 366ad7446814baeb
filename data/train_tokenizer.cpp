#include "data/train_tokenizer.h"

#include <sentencepiece_trainer.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <string_view>
#include <unordered_map>

#include "data/utf8.h"
#include "kernels/error.h"

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
    Next();
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

std::unordered_map<std::string, std::string> trainer_settings(std::int64_t vocab_size) {
  return {
      {"model_type", "bpe"},
      {"vocab_size", fmt::format("{}", vocab_size)},
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

/// SentencePiece's words without the source line and the condition that it puts before them.
std::string_view plain_words(std::string_view message) {
  const auto bracket = message.rfind("] ");
  return bracket == std::string_view::npos ? message : message.substr(bracket + 2);
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
  if (!status.ok()) {
    fail(
        "a tokenizer with a vocabulary of {} cannot be trained on this text ({}); change --vocab-size or "
        "give more "
        "text",
        training.vocab_size, plain_words(status.message()));
  }
  return model;
}

}  // namespace ratplus::data
