// Converts a model's weights from any format that can be read to one that can be written.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "lib/weights/source.h"

namespace ratplus::weights {

enum class Format { checkpoint, pytorch, safetensors, sharded_safetensors };
const char* to_string(Format format);
/// Told by the name: .pth, .pt, .bin; .safetensors; *.safetensors.index.json; anything else, and what ends in /, is a
/// directory.
Format format_of(const std::filesystem::path& destination);

/// Throws Error with the list of formats for a name with the suffix of another kind of file
/// (.gguf). A suffix that begins with a digit is part of a directory's name (run-0.2).
void require_known_suffix(const std::filesystem::path& destination);

struct ExportOptions {
  std::optional<StoredType> type = {};  ///< of all weights; else as they are stored, in a checkpoint float32
  int parts = 1;                        ///< files of a checkpoint
  std::int64_t shard_bytes = std::int64_t{4}
                             << 30;           ///< of a file of sharded safetensors, at most if a tensor fits
  bool weights_only = false;                  ///< checkpoint to checkpoint: without the optimizer's state
  std::optional<std::string> tokenizer = {};  ///< identity, in the place of what the source says
  bool force = false;                         ///< replaces what is there
  /// Told of the bytes that were read since the last call, from the source as float32 and back from a checkpoint as it
  /// has them; may throw to end the work.
  std::function<void(std::int64_t)> progress = {};
};

/// Writes `destination`, complete or not at all, in pieces of bounded memory; makes the directories above it. Throws Error naming the file, and what
/// `progress` throws.
void convert(WeightsSource& source, const std::filesystem::path& destination, const ExportOptions& options);
/// The sum of all bytes that `progress` gets.
std::int64_t bytes_to_read(const WeightsSource& source, const std::filesystem::path& destination,
                           const ExportOptions& options);

// --- for the writers of the formats -----------------------------------------------------------------------------
/// A parameter to write, under the name that it has in files.
struct Parameter {
  std::string name;
  std::vector<std::int64_t> shape;
  StoredType type = StoredType::float32;
  std::size_t unit = 0;
  std::size_t slot = 0;

  std::int64_t numel() const;
  std::int64_t bytes() const { return numel() * bytes_of(type); }
};
/// In the order of the reference's state dict: embedding, layers, final norm.
std::vector<Parameter> parameters_of(const WeightsSource& source, const ExportOptions& options);
/// A format's sink of the parameters' bytes, on a thread of its own.
struct Sink {
  std::function<void(const Parameter& parameter, std::size_t i)> begin;  ///< the i-th of them
  std::function<void(std::string_view bytes)> write;  ///< as they are to be stored; in pieces
};
/// Reads the parameters one after another, piece by piece, while `sink` gets what was read before.
void stream(WeightsSource& source, const std::vector<Parameter>& parameters, const ExportOptions& options,
            const Sink& sink);
/// The source's info as it is to be written.
checkpoint::Info exported_info(const WeightsSource& source, const ExportOptions& options);

}  // namespace ratplus::weights
