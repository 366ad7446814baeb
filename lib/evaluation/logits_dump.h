// Logits and losses of given tokens, in an HDF5 file: how a conversion, or another implementation, is compared by
// numbers.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "lib/model/pattern_plan.h"
#include "lib/session/session.h"

namespace ratplus::evaluation {

/// Sequences of token numbers, all of one length.
struct TokenRows {
  std::int64_t length = 0;
  std::vector<std::int32_t> tokens;  ///< [rows, length]

  std::int64_t rows() const { return static_cast<std::int64_t>(tokens.size()) / length; }
};
/// Text, one sequence a line, numbers apart by spaces or commas. Throws Error naming file, line and what is wrong.
TokenRows read_token_rows(const std::filesystem::path& file, std::int64_t vocab_size);

/// Writes `file`, by the root of all ranks: for each pattern a group ("0", "1", ...) with its description, and of every
/// sequence (B), token (T) and entry of the vocabulary (V), row-major in one dimension:
///     logits  float32 [B, T, V]    of the token after each
///     losses  float64 [B, T - 1]   -log softmax(logits)[next token]
/// and `tokens` int32 [B, T] beside the groups. `means` becomes the mean loss of each pattern. The session is for one
/// sequence of this length. Throws Error, on all ranks alike.
void dump_logits(session::Session& session, const TokenRows& tokens,
                 const std::vector<model::PatternPlan>& patterns, const std::filesystem::path& file,
                 std::vector<double>& means);

/// Whether dump_logits has written the file.
bool is_logits_dump(const std::filesystem::path& file);

}  // namespace ratplus::evaluation
