#include "lib/weights/pytorch_writer.h"

#include "base/error.h"
#include "base/files/pending_file.h"
#include "lib/weights/description.h"
#include "lib/weights/pickler.h"
#include "lib/weights/pytorch_file.h"
#include "lib/weights/tensor_source.h"
#include "lib/weights/zip_writer.h"

namespace ratplus::weights {
namespace {

/// The state dict: every parameter in a record of its own, but for the head, which is the embedding's.
std::string pickle_of(const std::vector<Parameter>& parameters, const checkpoint::Info& info) {
  Pickler pickle;
  pickle.begin_dictionary();
  pickle.text("task");
  pickle.begin_ordered_dictionary();
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    pickle.text(parameters[i].name);
    pickle.tensor(parameters[i].type, i, parameters[i].shape);
  }
  pickle.text(head_name);
  pickle.tensor(parameters[0].type, 0, parameters[0].shape);
  pickle.end_dictionary();
  pickle.text(description_key);
  pickle.text(describe(info));
  pickle.end_dictionary();
  return pickle.finish();
}

}  // namespace

void write_pytorch(WeightsSource& source, const std::filesystem::path& file, const ExportOptions& options) {
  const auto parameters = parameters_of(source, options);
  require(parameters[0].name == embedding_name, "the first parameter is {}", parameters[0].name);
  PendingFile pending(file);
  // The archive's folder: PyTorch's is the file's name without its extension, which may be any.
  const std::string folder = "archive/";
  ZipWriter zip(pending.path(), file);
  zip.add(folder + "data.pkl", pickle_of(parameters, exported_info(source, options)));
  zip.add(folder + "byteorder", "little");
  stream(source, parameters, options,
         {.begin = [&](const Parameter& parameter,
                       std::size_t i) { zip.begin(fmt::format("{}data/{}", folder, i), parameter.bytes()); },
          .write = [&](std::string_view bytes) { zip.write(bytes); }});
  zip.add(folder + "version", "3\n");
  zip.finish();
  pending.commit();
}

}  // namespace ratplus::weights
