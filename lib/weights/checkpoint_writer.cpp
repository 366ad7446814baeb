#include "lib/weights/checkpoint_writer.h"

#include "base/error.h"
#include "lib/checkpoint/part.h"
#include "lib/checkpoint/pending_directory.h"
#include "lib/weights/native_source.h"

namespace ratplus::weights {

bool keeps_optimizer(const WeightsSource& source, const ExportOptions& options) {
  return dynamic_cast<const NativeSource*>(&source) != nullptr && source.info().optimizer &&
         !options.weights_only && options.type.value_or(StoredType::float32) == StoredType::float32;
}

void write_checkpoint(WeightsSource& source, const std::filesystem::path& directory,
                      const ExportOptions& options) {
  auto info = exported_info(source, options);
  info.directory = directory;
  info.parts = options.parts;
  info.files.clear();
  info.weights_type = options.type.value_or(StoredType::float32);
  info.optimizer = keeps_optimizer(source, options);
  if (!info.optimizer) {
    info.updates = 0;
    info.left_out.clear();
  }

  auto* native = dynamic_cast<NativeSource*>(&source);
  const auto read = [&](checkpoint::Kind kind, std::size_t unit, parallel::UnitRange range,
                        std::span<float> out) {
    if (kind == checkpoint::Kind::weights) {
      source.read(unit, range, out.data());
    } else {
      native->read_state(kind, unit, range, out.data());
    }
    if (options.progress) options.progress(static_cast<std::int64_t>(out.size_bytes()));
  };
  checkpoint::PendingDirectory pending(directory);
  for (int part = 0; part < info.parts; ++part) {
    checkpoint::write_part(pending.path(), info, part, source.units(), read);
    info.files.push_back(
        checkpoint::verify_written(pending.path(), info, part, source.units(), options.progress));
  }
  checkpoint::write_manifest(pending.path(), info);
  pending.commit();
}

}  // namespace ratplus::weights
