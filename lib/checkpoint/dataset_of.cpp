#include "lib/checkpoint/dataset_of.h"

#include "base/error.h"
#include "data/dataset/manifest.h"
#include "lib/config/job.h"

namespace ratplus::checkpoint {
namespace fs = std::filesystem;

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
