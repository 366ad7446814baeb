#include "lib/checkpoint/tokenizer_of.h"

#include "base/error.h"
#include "data/dataset/manifest.h"
#include "lib/checkpoint/checkpoint.h"
#include "lib/config/job.h"

namespace ratplus::checkpoint {
namespace {

namespace fs = std::filesystem;

fs::path of_dataset(const fs::path& directory, const data::Manifest& manifest) {
  if (manifest.tokenizer_file.empty())
    fail("{}: the dataset was imported without a tokenizer; name the tokenizer's file", directory.string());
  return directory / manifest.tokenizer_file;
}

}  // namespace

fs::path tokenizer_of(const fs::path& given) {
  if (!fs::exists(given)) fail("{}: no such file or directory", given.string());
  if (!fs::is_directory(given)) return given;
  if (fs::exists(given / data::manifest_name)) return of_dataset(given, data::read_manifest(given));
  const auto dataset = dataset_of(read_info(resolve(given)));
  return of_dataset(dataset, data::read_manifest(dataset));
}

fs::path dataset_of(const Info& info) {
  if (info.job.empty())
    fail("{}: the checkpoint does not say which dataset it was trained on; name the tokenizer's file",
         info.directory.string());
  const auto job = config::parse_job(info.job, info.directory.string(), {});
  fs::path dataset = job.data.all_sources().front().directory;
  if (!fs::exists(dataset / data::manifest_name)) {
    fail("{}: was trained on the dataset {}, which is not there; name the tokenizer's file",
         info.directory.string(), dataset.string());
  }
  const data::Manifest manifest = data::read_manifest(dataset);
  if (!info.tokenizer.empty() && manifest.tokenizer != info.tokenizer) {
    fail("{}: was trained with {}, and the dataset {} is now of {}; name the tokenizer's file",
         info.directory.string(), info.tokenizer, dataset.string(), manifest.tokenizer);
  }
  return dataset;
}

}  // namespace ratplus::checkpoint
