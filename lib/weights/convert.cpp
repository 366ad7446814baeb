#include "lib/weights/convert.h"

#include <algorithm>
#include <cctype>

#include "base/error.h"
#include "base/files/conveyor.h"
#include "base/files/file_lock.h"
#include "base/files/new_directories.h"
#include "lib/checkpoint/checkpoint.h"
#include "lib/checkpoint/part.h"
#include "lib/weights/checkpoint_writer.h"
#include "lib/weights/native_source.h"
#include "lib/weights/pytorch_writer.h"
#include "lib/weights/safetensors_file.h"
#include "lib/weights/safetensors_writer.h"

namespace ratplus::weights {
namespace {

namespace fs = std::filesystem;

/// That are on their way from the source to the file.
constexpr std::size_t pieces = 3;

}  // namespace

const char* to_string(Format format) {
  switch (format) {
    case Format::checkpoint:
      return "checkpoint";
    case Format::pytorch:
      return "PyTorch";
    case Format::safetensors:
      return "safetensors";
    case Format::sharded_safetensors:
      return "sharded safetensors";
  }
  return "";
}

Format format_of(const fs::path& destination) {
  const std::string name = destination.filename().string();
  if (name.ends_with(safetensors_index_suffix)) return Format::sharded_safetensors;
  if (name.ends_with(safetensors_suffix)) return Format::safetensors;
  for (const char* suffix : {".pth", ".pt", ".bin"}) {
    if (name.ends_with(suffix)) return Format::pytorch;
  }
  return Format::checkpoint;
}

void require_known_suffix(const fs::path& destination) {
  const std::string suffix = destination.filename().extension().string();
  const bool letters = suffix.size() > 1 && std::isalpha(static_cast<unsigned char>(suffix[1])) != 0;
  if (!letters || format_of(destination) != Format::checkpoint) return;
  fail(
      "{}: {} is no format that can be written; a name ends in .pth, .pt or .bin (PyTorch), in {}, or in {} "
      "(several files), and a checkpoint's directory in none or in /",
      destination.string(), suffix, safetensors_suffix, safetensors_index_suffix);
}

std::int64_t Parameter::numel() const {
  std::int64_t count = 1;
  for (const auto size : shape) count *= size;
  return count;
}

std::vector<Parameter> parameters_of(const WeightsSource& source, const ExportOptions& options) {
  std::vector<Parameter> parameters;
  std::vector<Parameter> last;
  for (std::size_t unit = 0; unit < source.units().size(); ++unit) {
    const auto& slots = source.units()[unit].slots;
    const bool full_precision = source.units()[unit].full_precision;
    for (std::size_t slot = 0; slot < slots.size(); ++slot) {
      Parameter parameter{.name = slots[slot].name,
                          .shape = slots[slot].shape,
                          .type = full_precision ? StoredType::float32
                                                 : options.type.value_or(source.stored_type(unit, slot)),
                          .unit = unit,
                          .slot = slot};
      // The root unit holds the first and the last of them.
      (unit == 0 && slot > 0 ? last : parameters).push_back(std::move(parameter));
    }
  }
  std::move(last.begin(), last.end(), std::back_inserter(parameters));
  return parameters;
}

void stream(WeightsSource& source, const std::vector<Parameter>& parameters, const ExportOptions& options,
            const Sink& sink) {
  struct Piece {
    std::size_t parameter = 0;
    bool first = false;
    std::vector<char> bytes;
  };
  std::vector<float> values;
  Conveyor<Piece> writing(pieces, [&](Piece& piece) {
    if (piece.first && sink.begin) sink.begin(parameters[piece.parameter], piece.parameter);
    if (sink.write) sink.write({piece.bytes.data(), piece.bytes.size()});
  });
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const auto& parameter = parameters[i];
    const auto offset = source.units()[parameter.unit].slots[parameter.slot].offset;
    checkpoint::in_pieces(parameter.numel(), [&](std::int64_t begin, std::int64_t end) {
      Piece& piece = writing.next();
      piece.parameter = i;
      piece.first = begin == 0;
      values.resize(static_cast<std::size_t>(end - begin));
      source.read(parameter.unit, {offset + begin, offset + end}, values.data());
      piece.bytes.resize(values.size() * static_cast<std::size_t>(bytes_of(parameter.type)));
      if (!encode(parameter.type, values, piece.bytes.data())) {
        fail("{}: {} has values beyond what {} can hold; choose another --dtype",
             source.info().directory.string(), parameter.name, to_string(parameter.type));
      }
      writing.send();
      if (options.progress) options.progress((end - begin) * static_cast<std::int64_t>(sizeof(float)));
    });
  }
  writing.finish();
}

checkpoint::Info exported_info(const WeightsSource& source, const ExportOptions& options) {
  auto info = source.info();
  if (options.tokenizer) info.tokenizer = *options.tokenizer;
  return info;
}

std::int64_t bytes_to_read(const WeightsSource& source, const fs::path& destination,
                           const ExportOptions& options) {
  constexpr std::int64_t float_bytes = sizeof(float);
  std::int64_t elements = 0;
  if (format_of(destination) != Format::checkpoint) {
    for (const auto& parameter : parameters_of(source, options)) elements += parameter.numel();
    return elements * float_bytes;
  }
  for (const auto& unit : source.units()) elements += unit.numel;
  const auto moments = keeps_optimizer(source, options) ? 2 * elements * float_bytes : 0;
  const auto stored = elements * bytes_of(options.type.value_or(StoredType::float32)) + moments;
  return elements * float_bytes + moments + stored;
}

namespace {

/// --force replaces a file by a file and a checkpoint by a checkpoint, and nothing else: a directory is removed with all
/// that it holds.
void require_replaceable(const fs::path& destination) {
  if (!fs::exists(destination)) return;
  const bool directory = fs::is_directory(destination);
  if (format_of(destination) != Format::checkpoint) {
    if (directory)
      fail("{}: is a directory, and by its name a file is wanted; choose another", destination.string());
    return;
  }
  if (!directory)
    fail(
        "{}: is a file, and a checkpoint is a directory; choose another name (a file's ends in .pth or "
        ".safetensors)",
        destination.string());
  if (!is_checkpoint(destination) && !fs::is_empty(destination))
    fail(
        "{}: is a directory that is no checkpoint, and --force would remove all that it holds; choose "
        "another name",
        destination.string());
}

}  // namespace

void convert(WeightsSource& source, const fs::path& destination, const ExportOptions& options) {
  require_known_suffix(destination);
  std::error_code other;
  if (fs::equivalent(source.info().directory, destination, other))
    fail("{}: is the source of the conversion; write to another place", destination.string());
  if (fs::exists(destination) && !options.force)
    fail("{}: is there already; choose another name, or replace it with --force", destination.string());
  require_replaceable(destination);
  NewDirectories(fs::absolute(destination).parent_path()).keep();
  // Two at once would write one partial file between them.
  const auto named = destination.has_filename() ? destination : destination.parent_path();
  const FileLock lock(named.parent_path() / ("." + named.filename().string() + ".lock"), destination,
                      "conversion", FileLock::After::remove);
  source.expect_one_reading();
  switch (format_of(destination)) {
    case Format::checkpoint:
      return write_checkpoint(source, destination.has_filename() ? destination : destination.parent_path(),
                              options);
    case Format::pytorch:
      return write_pytorch(source, destination, options);
    case Format::safetensors:
      return write_safetensors(source, destination, options);
    case Format::sharded_safetensors:
      return write_sharded_safetensors(source, destination, options);
  }
}

}  // namespace ratplus::weights
