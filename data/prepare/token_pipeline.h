// TokenPipeline: documents read, tokenized by many threads, and handed on in order.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "data/prepare/text_portions.h"
#include "data/tokenizer/tokenizer.h"

namespace ratplus::data {

struct TokenizedDocument {
  std::vector<std::int32_t> tokens;
  double position = 0;                       ///< held_out_position of its text
  std::array<std::uint64_t, 2> text_hash{};  ///< of SHA-256, if asked for
  bool repaired = false;                     ///< as in Document
  DocumentPlace place = {};
  bool empty = false;  ///< no text: no tokens
};

struct PipelineSettings {
  std::string text_key;
  bool hash_texts = false;
  int threads = 1;
};

/// Receivers of the results, called in the caller's thread.
struct PipelineSink {
  std::function<void(const TokenizedDocument&)> document;
  /// `bytes`: of the portion's files that are read so far. Often enough to report progress; what it throws ends the work.
  std::function<void(std::int64_t bytes)> progress;
  /// A portion's documents are all out.
  std::function<void(const TextPortion&)> portion_done;
};

/// One thread reads, `threads` tokenize; some megabytes a thread are under way, or one document. Throws what reading or
/// tokenizing threw, in its place in the order.
void tokenize_portions(const std::vector<const TextPortion*>& portions, const Tokenizer& tokenizer,
                       const PipelineSettings& settings, const PipelineSink& sink);

}  // namespace ratplus::data
