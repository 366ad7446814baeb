#include "lib/generate/model_text.h"

#include "base/error.h"
#include "data/dataset/manifest.h"
#include "lib/checkpoint/dataset_of.h"
#include "lib/generate/tokenizer_of.h"

namespace ratplus::generate {
namespace {

namespace fs = std::filesystem;

std::int32_t end_of_text_or_none(const data::Tokenizer& tokenizer) {
  try {
    return tokenizer.end_of_text();
  } catch (const Error&) {
    return -1;
  }
}

void check_fits(const checkpoint::Info& info, const data::Tokenizer& tokenizer, const fs::path& file) {
  if (!info.tokenizer.empty() && tokenizer.identity() != info.tokenizer) {
    fail("{}: the tokenizer is {}, and {} was trained with {}; give the file of the latter", file.string(),
         tokenizer.identity(), info.directory.string(), info.tokenizer);
  }
  if (tokenizer.vocab_size() > info.model.vocab_size) {
    fail("{}: the tokenizer has {} tokens, and the model of {} has {}; give the model's own", file.string(),
         tokenizer.vocab_size(), info.directory.string(), info.model.vocab_size);
  }
}

}  // namespace

const data::Tokenizer& ModelText::required() const {
  if (!tokenizer) fail("{}", missing);
  return *tokenizer;
}

std::string ModelText::text_of(std::vector<std::int32_t> tokens) const {
  std::erase_if(tokens, [&](std::int32_t token) {
    return token >= tokenizer->vocab_size() || tokenizer->is_special(token);
  });
  return tokenizer->decode(tokens);
}

ModelText find_text(const checkpoint::Info& info, const fs::path& given, const std::string& end_of_text) {
  ModelText text{.model_tokens = info.model.vocab_size};
  fs::path file, dataset;
  if (!given.empty()) {
    file = tokenizer_of(given);
    if (fs::exists(given / data::manifest_name)) dataset = given;
  } else {
    try {
      dataset = checkpoint::dataset_of(info);
      const auto manifest = data::read_manifest(dataset);
      text.end_of_text = static_cast<std::int32_t>(manifest.end_of_text);
      if (manifest.tokenizer_file.empty())
        fail("{}: the dataset was imported without a tokenizer; name the tokenizer's file", dataset.string());
      file = dataset / manifest.tokenizer_file;
    } catch (const Error& error) {
      text.missing = std::string(error.what()) + " (--tokenizer FILE)";
      return text;
    }
  }
  text.tokenizer.emplace(file, end_of_text);
  check_fits(info, *text.tokenizer, file);
  text.end_of_text = dataset.empty() || !end_of_text.empty()
                         ? end_of_text_or_none(*text.tokenizer)
                         : static_cast<std::int32_t>(data::read_manifest(dataset).end_of_text);
  return text;
}

}  // namespace ratplus::generate
