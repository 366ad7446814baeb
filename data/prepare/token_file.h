// TokenFile: the tokens of a file that another program wrote, raw or HDF5, for `import`.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

namespace ratplus::data {

class TokenFile {
 public:
  virtual ~TokenFile() = default;
  virtual std::int64_t tokens() const = 0;
  /// The next tokens; fewer than `out` has room for at the end only.
  virtual std::size_t read(std::span<std::int64_t> out) = 0;
  /// What to say of a token outside the vocabulary: "; ..." or "".
  virtual const char* doubt() const = 0;
};

struct TokenFileOptions {
  int bin_bytes = 0;            ///< of a token in .bin files: 2, 4 or 8; 0: not stated, so 2
  std::string dataset;          ///< in HDF5 files; empty: the only one
  std::int64_t vocab_size = 0;  ///< that the numbers must be able to hold
};

/// Throws Error naming the file where it is of another kind than its name says (NumPy's, llm.c's, packed, text, a Git LFS
/// pointer, ...), where its numbers are too narrow for the vocabulary, or where they are no tokens of the width, or not of
/// the byte order, that is taken without the width having been stated.
std::unique_ptr<TokenFile> open_tokens(const std::filesystem::path& file, const TokenFileOptions& options);

/// What is odd about a .bin file of tokens of the width that was stated; "" if nothing is.
std::string width_doubt(const std::filesystem::path& file, int bytes);

/// Says that a .bin file of 2-byte tokens seems to be big-endian: read so, its tokens are far more often small, as the
/// frequent tokens of a vocabulary are. "" if it does not, or for tokens of another width, which in the wrong order are
/// outside any vocabulary.
std::string byte_order_doubt(const std::filesystem::path& file, int bytes);

}  // namespace ratplus::data
