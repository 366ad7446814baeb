#include "data/tokenizer/tokenizer.h"

#include "base/error.h"
#include "base/files/foreign_file.h"
#include "base/files/pending_file.h"
#include "base/files/sha256.h"
#include "data/tokenizer/huggingface_tokenizer.h"
#include "data/tokenizer/sentencepiece_tokenizer.h"

namespace ratplus::data {

struct Tokenizer::Impl {
  std::unique_ptr<TokenizerModel> model;
  std::string file;
  std::string identity;
  const char* file_name = nullptr;
  std::int64_t vocab_size = 0;
  std::int32_t end_of_text = -1;

  void check(std::int32_t token) const {
    if (token >= 0 && token < vocab_size) return;
    fail("token id {} is outside the vocabulary of {} ({} tokens)", token, file, vocab_size);
  }
};

Tokenizer::Tokenizer(const std::filesystem::path& model, const std::string& end_of_text)
    : impl_(std::make_unique<Impl>()) {
  impl_->file = model.string();
  const std::string bytes = read_whole_file(model);
  refuse_foreign(std::string_view(bytes).substr(0, head_bytes), model);
  const auto first = bytes.find_first_not_of(" \t\r\n");
  const bool json = first != std::string::npos && bytes[first] == '{';
  impl_->model =
      json ? huggingface_tokenizer(bytes, impl_->file) : sentencepiece_tokenizer(bytes, impl_->file);
  impl_->identity = (json ? "huggingface:sha256:" : "sentencepiece:sha256:") + sha256_hex(bytes);
  impl_->file_name = json ? "tokenizer.json" : "tokenizer.model";
  impl_->vocab_size = impl_->model->vocab_size();
  impl_->end_of_text = impl_->model->end_of_text();
  if (end_of_text.empty()) return;
  impl_->end_of_text = impl_->model->id_of(end_of_text);
  if (impl_->end_of_text < 0)
    fail("{}: has no token \"{}\"; name another with --end-of-text", impl_->file, end_of_text);
}

Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

std::int64_t Tokenizer::vocab_size() const {
  return impl_->vocab_size;
}

std::int32_t Tokenizer::end_of_text() const {
  if (impl_->end_of_text < 0 || impl_->end_of_text >= impl_->vocab_size) {
    fail(
        "{}: does not say which token ends a text, without which documents cannot be told apart; name it "
        "with "
        "--end-of-text, or train a tokenizer with --train-tokenizer",
        impl_->file);
  }
  return impl_->end_of_text;
}

const std::string& Tokenizer::identity() const {
  return impl_->identity;
}
const char* Tokenizer::file_name() const {
  return impl_->file_name;
}

void Tokenizer::encode(std::string_view text, std::vector<std::int32_t>& out) const {
  out.clear();
  impl_->model->encode(text, out);
}

std::string Tokenizer::decode(std::span<const std::int32_t> tokens) const {
  for (const std::int32_t id : tokens) impl_->check(id);
  return impl_->model->decode(tokens);
}

bool Tokenizer::is_special(std::int32_t token) const {
  impl_->check(token);
  return impl_->model->is_special(token);
}

std::string Tokenizer::bytes_of(std::int32_t token) const {
  impl_->check(token);
  return impl_->model->bytes_of(token);
}

TokenDecoder::TokenDecoder(const Tokenizer& tokenizer)
    : tokenizer_(tokenizer.impl_.get()), model_(tokenizer_->model->make_decoder()) {}

std::string TokenDecoder::add(std::int32_t token) {
  tokenizer_->check(token);
  return tokenizer_->model->is_special(token) ? std::string() : model_->add(token);
}

std::string TokenDecoder::finish() {
  std::string rest = model_->finish();
  model_ = tokenizer_->model->make_decoder();
  return rest;
}

}  // namespace ratplus::data
