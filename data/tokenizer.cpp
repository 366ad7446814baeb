#include "data/tokenizer.h"

#include <sentencepiece_processor.h>

#include <algorithm>

#include "data/pending_file.h"
#include "data/sentencepiece_words.h"
#include "data/sha256.h"
#include "kernels/error.h"

namespace ratplus::data {
namespace {

/// Longer texts are encoded in parts of about this many bytes: SentencePiece's merging takes some 100 bytes
/// of memory for each byte of text, and slows down when that leaves the caches.
constexpr std::size_t part_bytes = std::size_t{64} << 10;

bool is_space(char c) {
  return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

/// Where the first part of `text` ends: at a single blank between two words at or after `part_bytes`, or at
/// the end.
std::size_t part_end(std::string_view text) {
  for (std::size_t at = part_bytes; at + 1 < text.size(); ++at) {
    if (text[at] == ' ' && !is_space(text[at - 1]) && !is_space(text[at + 1])) return at;
  }
  return text.size();
}

}  // namespace

struct Tokenizer::Impl {
  sentencepiece::SentencePieceProcessor model;
  std::string file;
  std::string identity;
  std::int64_t vocab_size = 0;
  std::int32_t end_of_text = -1;
  bool adds_blank = false;  ///< the model puts a blank before every text ("dummy prefix")
};

Tokenizer::Tokenizer(const std::filesystem::path& model) : impl_(std::make_unique<Impl>()) {
  impl_->file = model.string();
  const std::string bytes = read_whole_file(model);
  const auto status = impl_->model.LoadFromSerializedProto(bytes);
  if (!status.ok()) {  // its words are the source line and condition that failed
    fail("{} is not a SentencePiece model; give a tokenizer.model, or train one with --train-tokenizer",
         impl_->file);
  }
  impl_->identity = "sentencepiece:sha256:" + sha256_hex(bytes);
  impl_->vocab_size = impl_->model.GetPieceSize();
  impl_->end_of_text = impl_->model.eos_id();
  if (impl_->end_of_text < 0 || impl_->end_of_text >= impl_->vocab_size) {
    fail(
        "{}: the model has no end-of-text token (eos), without which documents cannot be told apart; give a "
        "model that has one, or train one with --train-tokenizer",
        impl_->file);
  }
  std::vector<std::string> pieces;
  impl_->adds_blank =
      impl_->model.Encode("a", &pieces).ok() && !pieces.empty() &&
      pieces.front().starts_with("\xE2\x96\x81");  // U+2581, a blank as SentencePiece writes it
}

Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

std::int64_t Tokenizer::vocab_size() const {
  return impl_->vocab_size;
}
std::int32_t Tokenizer::end_of_text() const {
  return impl_->end_of_text;
}
const std::string& Tokenizer::identity() const {
  return impl_->identity;
}

void Tokenizer::encode(std::string_view text, std::vector<std::int32_t>& out) const {
  out.clear();
  std::vector<int> ids;
  while (!text.empty()) {
    // A piece holds a blank only as its first character (or is made of blanks), so no merge crosses the cut,
    // and the parts give the tokens of the whole. The blank at the cut is the one that the model puts before
    // a text, if it does that, and stays with the next part otherwise.
    const std::size_t end = part_end(text);
    const auto status = impl_->model.Encode(text.substr(0, end), &ids);
    if (!status.ok()) fail("{}: cannot encode a text: {}", impl_->file, plain_words(status.message()));
    out.insert(out.end(), ids.begin(), ids.end());
    text.remove_prefix(std::min(text.size(), end + (impl_->adds_blank ? 1 : 0)));
  }
}

std::string Tokenizer::decode(std::span<const std::int32_t> tokens) const {
  for (const std::int32_t id : tokens) {
    if (id < 0 || id >= impl_->vocab_size) {
      fail("token id {} is outside the vocabulary of {} ({} tokens)", id, impl_->file, impl_->vocab_size);
    }
  }
  std::string text;
  const auto status = impl_->model.Decode(std::vector<int>(tokens.begin(), tokens.end()), &text);
  if (!status.ok()) fail("{}: cannot decode: {}", impl_->file, plain_words(status.message()));
  return text;
}

}  // namespace ratplus::data
